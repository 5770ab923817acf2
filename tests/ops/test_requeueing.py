"""Starting a run again: which way, and that a refusal leaves the run as it was."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from hpcresume.errors import RunBusyError, RunDirectoryError, RunError, SlurmError
from hpcresume.observe.glance import glance
from hpcresume.ops import overview
from hpcresume.ops.requeueing import plan_restart
from hpcresume.slurm.queue import QueuedJob
from hpcresume.submit.record import Folder
from tests.submit.scripts import stand_in
from tests.support.many_runs import make_run


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A queue of a test's choice, and commands that are written down; `slurm.code` is their exit code."""

    class Slurm:
        def __init__(self) -> None:
            self.queue: dict[str, QueuedJob] = {}

        def commands(self, code: int = 0) -> None:
            for name in ("scontrol", "sbatch"):
                text = (
                    f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\npwd >> {tmp_path}/calls\necho 99\nexit {code}\n'
                )
                stand_in(tmp_path / "bin", name, text)
            monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

        @property
        def calls(self) -> list[str]:
            path = tmp_path / "calls"
            return path.read_text().splitlines() if path.exists() else []

    given = Slurm()
    monkeypatch.setattr(overview.overview, "__kwdefaults__", {
        **overview.overview.__kwdefaults__, "ask": lambda ids: {i: given.queue[i] for i in ids if i in given.queue},
    })  # fmt: skip
    given.commands()
    return given


def submitted(run: Path, job: str, directory: Path | None, **facts) -> None:
    (run / "submit").mkdir(parents=True)
    place = {} if directory is None else {"directory": str(directory)}
    text = {"job_id": job, "submitted_at": time.time() - 1e6, "options": ["--qos=high"], **place, **facts}
    (run / "submit" / "job.json").write_text(json.dumps(text))
    (run / "submit" / "script.sbatch").write_text("#!/bin/sh\n")


def never(_spec):
    raise AssertionError("no function was submitted")


def test_a_hold_of_its_own_is_lifted_and_the_job_requeued(tmp_path, slurm):
    run = make_run(tmp_path / "run", 2, job=7, hold="3 crashes")
    slurm.queue = {"7": QueuedJob("7", "FAILED")}
    plan = plan_restart(run)
    assert (plan.kind, plan.lifts_hold, len(plan.steps)) == ("requeue", True, 2)
    assert plan.carry_out(never) == "7"
    assert slurm.calls[0] == "scontrol requeue 7"
    assert glance(run).newest.decided == "come-back"


def test_a_refusal_leaves_the_hold_and_done_as_they_were(tmp_path, slurm):
    slurm.commands(code=1)
    run = make_run(tmp_path / "run", 2, job=7, hold="3 crashes")
    slurm.queue = {"7": QueuedJob("7", "FAILED")}
    with pytest.raises(SlurmError, match="refused"):
        plan_restart(run).carry_out(never)
    seen = glance(run).newest
    assert (seen.decided, seen.reason) == ("hold", "3 crashes")
    assert not (run / "by-hand.jsonl").exists()

    done = make_run(tmp_path / "done", 1, job=8, done=True)
    slurm.queue["8"] = QueuedJob("8", "COMPLETED")
    before = json.loads((done / "DONE").read_text())
    with pytest.raises(SlurmError, match="refused"):
        plan_restart(done, reopen_done=True).carry_out(never)
    assert json.loads((done / "DONE").read_text()) == before


def test_a_refused_requeue_falls_back_to_the_recorded_submission_in_its_folder(tmp_path, slurm):
    run, home = make_run(tmp_path / "run", 1, job=7), tmp_path / "home"
    home.mkdir()
    submitted(run, "7", home)
    slurm.queue = {"7": QueuedJob("7", "CANCELLED")}
    stand_in(tmp_path / "bin", "scontrol", "#!/bin/sh\nexit 1\n")
    assert plan_restart(run).carry_out(never) == "99"
    assert slurm.calls == [f"sbatch --parsable --qos=high {run}/submit/script.sbatch", str(home)]
    assert json.loads((run / "submit" / "job.json").read_text())["job_id"] == "99"
    assert Path.cwd() != home


def test_a_job_that_was_submitted_stays_so_though_it_cannot_be_recorded(tmp_path, slurm, monkeypatch, capsys):
    run = make_run(tmp_path / "run", 1, done=True)
    submitted(run, "7", tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Folder, "write_job", full)
    assert plan_restart(run, reopen_done=True).carry_out(never) == "99"
    assert not (run / "DONE").exists(), "the job would find it and do nothing"
    assert "will not see job 99" in capsys.readouterr().err


def test_ctrl_c_before_the_job_is_submitted_leaves_done_and_the_hold(tmp_path, slurm):
    def interrupted(_spec):
        raise KeyboardInterrupt

    for name, facts in (("done", {"done": True}), ("held", {"hold": "3 crashes"})):
        run = make_run(tmp_path / name, 1, **facts)
        submitted(run, "7", tmp_path, spec={"name": "f", "function": "m:train"})
        before = glance(run)
        with pytest.raises(KeyboardInterrupt):
            plan_restart(run, reopen_done=name == "done").carry_out(interrupted)
        now = glance(run)
        assert (now.done, now.done_facts, now.newest.decided) == (before.done, before.done_facts, before.newest.decided)


def test_one_that_waits_is_left_alone_and_one_that_is_held_in_the_queue_released(tmp_path, slurm):
    run = make_run(tmp_path / "run", 1, job=7)
    slurm.queue = {"7": QueuedJob("7", "PENDING", "Priority")}
    plan = plan_restart(run)
    assert (plan.kind, plan.carry_out(never), slurm.calls) == ("nothing", "7", [])
    slurm.queue = {"7": QueuedJob("7", "PENDING", "JobHeldUser")}
    assert plan_restart(run).carry_out(never) == "7"
    assert slurm.calls[0] == "scontrol release 7"


def test_a_stage_that_is_opened_again_waits_for_no_job_of_old_and_stays_a_stage(tmp_path, slurm):
    run = make_run(tmp_path / "train", 1, done=True)
    waits = ["--qos=high", "--dependency=afterok:3", "--kill-on-invalid-dep=no"]
    submitted(run, "7", tmp_path, stage="train", options=waits)
    assert plan_restart(run, reopen_done=True).carry_out(never) == "99"
    assert slurm.calls[0] == f"sbatch --parsable --qos=high {run}/submit/script.sbatch"
    assert json.loads((run / "submit" / "job.json").read_text())["stage"] == "train"


def test_a_finished_run_is_reopened_only_when_asked(tmp_path, slurm):
    run = make_run(tmp_path / "run", 1, job=7, done=True)
    slurm.queue = {"7": QueuedJob("7", "COMPLETED")}
    with pytest.raises(RunError, match="finished") as caught:
        plan_restart(run)
    assert "--reopen; the training must then ask for more than 100 steps" in caught.value.hint
    plan = plan_restart(run, reopen_done=True)
    assert plan.steps[0].startswith("remove ")
    assert (run / "DONE").exists()
    plan.carry_out(never)
    assert not (run / "DONE").exists()


def test_what_cannot_be_started_again_says_why(tmp_path, slurm):
    slurm.queue = {"7": QueuedJob("7", "RUNNING")}
    with pytest.raises(RunBusyError, match="at work"):
        plan_restart(make_run(tmp_path / "busy", 1, job=7))
    with pytest.raises(RunDirectoryError, match="nothing here tells how it was submitted"):
        plan_restart(make_run(tmp_path / "by-hand", 1, job=8))
    old = make_run(tmp_path / "old", 1, job=8)
    submitted(old, "8", None)
    with pytest.raises(RunDirectoryError, match="was not recorded"):
        plan_restart(old)
    gone = make_run(tmp_path / "gone", 1, job=9)
    submitted(gone, "9", tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match="cannot be entered"):
        plan_restart(gone).carry_out(never)


def test_a_function_is_submitted_through_submitit_again(tmp_path, slurm):
    run = make_run(tmp_path / "run", 1, job=7)
    submitted(run, "7", tmp_path, spec={"name": "f", "function": "m:train"})
    taken = []
    assert plan_restart(run).carry_out(lambda spec: taken.append(spec) or "55") == "55"
    assert (taken[0].function, slurm.calls) == ("m:train", [])
    submitted(make_run(tmp_path / "bad", 1, job=7), "7", tmp_path, spec={"function": "m:train"})
    with pytest.raises(RunDirectoryError, match="recorded submission is damaged"):
        plan_restart(tmp_path / "bad").carry_out(lambda _: "1")
