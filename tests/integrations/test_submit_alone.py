"""`hr.submit` twice for one run: the second one is refused at once, and not by a job that has waited for days."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.errors import RunBusyError, SlurmError
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.queue import QueuedJob
from hpcresume.submit import record
from hpcresume.submit.record import Folder, states_at_once
from tests.support.many_runs import make_run

pytest.importorskip("submitit")


def numbered(number: int, run: str) -> int:
    """A function that an array may call."""
    return number


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """sbatch gives job 7, 8, …; `slurm.queue` is what squeue knows, `slurm.asked` how often it was asked."""

    class Slurm:
        def __init__(self) -> None:
            self.queue: dict[str, QueuedJob] | None = {}
            self.asked: list[list[str]] = []

        def ask(self, job_ids) -> dict[str, QueuedJob]:
            self.asked.append(list(job_ids))
            if self.queue is None:
                raise SlurmError("no answer within 15 s", where="squeue")
            return self.queue

    program = f"#!/bin/sh\necho x >> {tmp_path}/count\necho Submitted batch job $((6 + $(wc -l < {tmp_path}/count)))\n"
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", program), ("srun", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    given = Slurm()
    monkeypatch.setattr(record, "ask_queue", given.ask)
    return given


def spec(tmp_path: Path, **more: object) -> dict[str, object]:
    return {"name": "a", "function": numbered, "run": str(tmp_path / "run"), **more}


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "PREEMPTED"])
def test_a_run_whose_job_waits_or_works_gets_no_second_one_unless_that_is_wanted(tmp_path, slurm, state):
    assert hr.submit(spec(tmp_path, args=[1]), cluster="slurm").job_id == "7"
    slurm.queue = {"7": QueuedJob("7", state)}
    with pytest.raises(RunBusyError, match=re.escape(f"this run has a job already: job 7 ({state})")) as caught:
        hr.submit(spec(tmp_path, args=[1]), cluster="slurm")
    assert "again=True" in caught.value.hint
    assert hr.submit(spec(tmp_path, args=[1]), cluster="slurm", again=True).job_id == "8"
    assert Folder.of_run(tmp_path / "run").job_id() == "8"


@pytest.mark.parametrize("queue", [{}, {"7": QueuedJob("7", "FAILED")}])
def test_one_whose_job_is_over_or_forgotten_gets_another_one(tmp_path, slurm, queue):
    hr.submit(spec(tmp_path, args=[1]), cluster="slurm")
    slurm.queue = queue
    assert hr.submit(spec(tmp_path, args=[1]), cluster="slurm").job_id == "8"


def test_where_slurm_does_not_answer_the_job_is_submitted_and_the_doubt_is_said(tmp_path, slurm, capfd):
    hr.submit(spec(tmp_path, args=[1]), cluster="slurm")
    slurm.queue = None
    assert hr.submit(spec(tmp_path, args=[1]), cluster="slurm").job_id == "8"
    assert "job 7 of this run may be at work: Slurm does not say" in capfd.readouterr().err


def test_the_job_that_holds_the_newest_attempt_counts_too(tmp_path, slurm):
    """Submitted by hand, from a script: nothing was recorded but the claim."""
    make_run(tmp_path / "run", 1, job=70)
    slurm.queue = {"70": QueuedJob("70", "RUNNING")}
    with pytest.raises(RunBusyError, match=r"job 70 \(RUNNING\)"):
        hr.submit(spec(tmp_path, args=[1]), cluster="slurm")


def test_of_many_runs_one_squeue_tells_which_are_busy_and_nothing_is_submitted(tmp_path, slurm):
    count = 200
    hr.submit(spec(tmp_path), range(count), cluster="slurm")
    slurm.queue = {f"7_{task}": QueuedJob(f"7_{task}", "RUNNING" if task in (3, 9) else "COMPLETED")
                   for task in range(count)}  # fmt: skip
    RunPaths(tmp_path / "run-0").done.write_text("{}")
    slurm.asked.clear()
    with pytest.raises(RunBusyError, match=r"job 7_3 \(RUNNING\), and 1 more of the 200 runs have one"):
        hr.submit(spec(tmp_path), range(count), cluster="slurm")
    assert len(slurm.asked) == 1
    assert len((tmp_path / "count").read_text().split()) == 1


def test_two_submissions_at_one_moment_see_each_other(tmp_path, slurm):
    with Folder.of_run(tmp_path / "run").locked(), pytest.raises(RunBusyError, match="under way"):
        hr.submit(spec(tmp_path, args=[1]), cluster="slurm")
    assert not (tmp_path / "count").exists()


def test_a_whole_array_has_the_states_of_its_tasks(slurm):
    slurm.queue = {"5_0": QueuedJob("5_0", "COMPLETED"), "5_1": QueuedJob("5_1", "PENDING"),
                   "50": QueuedJob("50", "RUNNING")}  # fmt: skip
    states = states_at_once(["5", "6"])
    assert (states("5"), states("6")) == (("PENDING",), ())
