"""hr.save and who has the run: an attempt of the process's own, never into that of a live session."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.checkpoint.attempts import Holder, read_holder, read_starts
from hpcresume.checkpoint.history import lineage_names
from hpcresume.errors import GenerationConflictError, RunBusyError, RunDirectoryError, UntrackableError, UsageError
from hpcresume.io.paths import RunPaths
from hpcresume.testing.thread_ranks import run_ranks, unwrap
from tests.checkpoint.runs import begin, new_run
from tests.checkpoint.states import same, small_state
from tests.support.mpi import child_environment, mpiexec

SESSION = """
import sys, numpy, hpcresume as hr
with hr.session(sys.argv[1], every="1 step", comm="single") as s:
    s.track(x=numpy.zeros(3))
    for step in s.steps(1000):
        print("in", step, flush=True)
        if sys.stdin.readline() == "leave\\n":
            s.finish()
"""
SAVE = """
import sys, numpy, hpcresume as hr
from mpi4py import MPI
for word in sys.argv[2:]:
    step, _, value = word.partition("=")
    print(hr.save(sys.argv[1], {"x": numpy.full(3, float(value))}, step=int(step)).name, flush=True)
"""
SAVE_AND_STAY = """
import sys, numpy, hpcresume as hr
for line in sys.stdin:
    try:
        print(hr.save(sys.argv[1], {"x": numpy.zeros(3)}, step=int(line), comm="single").name, flush=True)
    except hr.errors.HpcresumeError as error:
        print(type(error).__name__, error, flush=True)
"""


class Talk:
    """A program that does one thing for each line it is sent, and prints one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, line: str = "") -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if line:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def talking(program: str, run: Path) -> Iterator[Talk]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(run)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=child_environment(),
    )  # fmt: skip
    try:
        yield Talk(process)
    finally:
        process.kill()
        process.communicate(timeout=20)


def save_elsewhere(run: Path, *words: str) -> list[str]:
    """Names of what a process of its own saved."""
    command = [sys.executable, "-c", SAVE, str(run), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_run_that_a_live_session_has_is_refused_and_untouched(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with talking(SESSION, run) as session:
        assert session() == "in 0"
        session("go on")
        before = sorted(p.name for p in (run / "attempts").iterdir())
        with pytest.raises(RunBusyError, match="still running attempt 1") as caught:
            hr.save(run, small_state(7), step=700)
        assert caught.value.hint
        assert sorted(p.name for p in (run / "attempts").iterdir()) == before == ["0001"]
        assert not list((run / "generations").glob("*700*"))
        assert session("go on") == "in 2", "and the session goes on"
    saved = hr.save(run, small_state(7), step=700)
    assert saved.attempt == 2, "once it is dead, in an attempt of its own"
    assert saved.parent is not None
    assert lineage_names(RunPaths(run))[:2] == [saved.name, saved.parent]


def test_a_session_of_this_process_is_refused_by_name_but_not_for_another_run(tmp_path: Path) -> None:
    with hr.session(tmp_path / "run", comm="single") as s:
        s.track(x=np.zeros(2))
        for step in s.steps(1):
            with pytest.raises(UsageError, match="session of this process") as caught:
                hr.save(tmp_path / "run", {}, step=step)
            assert caught.value.hint
            assert hr.save(tmp_path / "other", {}, step=step).attempt == 1
    assert hr.save(tmp_path / "run", small_state(2), step=2).attempt == 2


def test_an_attempt_of_ones_own_begins_where_the_lineage_ended(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (first,) = save_elsewhere(run, "10=1")
    saved = hr.save(run, small_state(20), step=20)
    assert (saved.attempt, saved.parent) == (2, first)
    assert read_starts(RunPaths(run)).known == {1: None, 2: first}
    assert hr.save(run, small_state(30), step=30).parent == saved.name
    assert lineage_names(RunPaths(run)) == ["g000000000030-a0002", "g000000000020-a0002", first]
    assert [g.name for g in hr.Generations(run).lineage()] == lineage_names(RunPaths(run))


def test_a_process_keeps_its_attempt(tmp_path: Path) -> None:
    names = [hr.save(tmp_path / "run", small_state(step), step=step).name for step in (1, 2, 3)]
    assert names == [f"g{step:012d}-a0001" for step in (1, 2, 3)]
    with pytest.raises(GenerationConflictError):
        hr.save(tmp_path / "run", small_state(9), step=3)
    assert sorted(p.name for p in (tmp_path / "run/attempts").iterdir()) == ["0001"]


def test_a_script_that_runs_again_gets_its_generations_back_until_one_differs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = save_elsewhere(run, "1=1", "2=2")
    kept = {p: p.stat().st_mtime_ns for p in (run / "generations").rglob("*")}
    assert save_elsewhere(run, "1=1", "2=2") == first
    assert {p: p.stat().st_mtime_ns for p in (run / "generations").rglob("*")} == kept
    assert sorted(p.name for p in (run / "attempts").iterdir()) == ["0001"], "nothing new, no attempt"
    assert save_elsewhere(run, "1=1", "2=5", "3=3") == [first[0], "g000000000002-a0002", "g000000000003-a0002"]
    assert same(hr.load(run / "generations" / first[1]).state, {"x": np.full(3, 2.0)})
    assert same(hr.load(run / "generations" / "g000000000002-a0002").state, {"x": np.full(3, 5.0)})


def test_a_damaged_generation_of_a_dead_attempt_is_saved_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (first,) = save_elsewhere(run, "1=1")
    (run / "generations" / first / "state.h5").write_bytes(b"")
    assert save_elsewhere(run, "1=1") == ["g000000000001-a0002"]
    assert same(hr.load(run).state, {"x": np.ones(3)})


def test_who_only_saves_does_not_keep_a_session_out_and_is_kept_out_by_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UntrackableError):
        hr.save(run, {"x": {1}}, step=0)  # has claimed attempt 1, and lives
    with talking(SESSION, run) as session:
        assert session() == "in 0"
        with pytest.raises(RunBusyError, match="attempt 2"):
            hr.save(run, {"x": np.ones(3)}, step=5)
    assert hr.save(run, {"x": np.ones(3)}, step=5).attempt == 3


def test_of_two_live_processes_that_save_the_one_that_came_last_has_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with talking(SAVE_AND_STAY, run) as first, talking(SAVE_AND_STAY, run) as second:
        assert first("1") == "g000000000001-a0001"
        assert second("2") == "g000000000002-a0002"
        assert first("3").startswith("RunBusyError")
        assert second("4") == "g000000000004-a0002"
        second.process.kill()
        second.process.wait()
        assert first("5") == "g000000000005-a0003"
    assert [name[-1] for name in lineage_names(RunPaths(run))] == ["3", "2", "2", "1"]


def test_another_slurm_job_that_saves_holds_the_run_and_its_own_restart_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "run")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    begin(run, Holder(None, 0, "n9", "boot", 1, "1", holds=False))
    assert hr.save(run.root, {}, step=1).attempt == 2, "no job: not held, though its files are fresh"
    begin(run, Holder("7", 0, "n9", "boot", 1, "1", holds=False))
    with pytest.raises(RunBusyError, match="job 7"):
        hr.save(run.root, {}, step=2)
    begin(run, Holder("8", 0, "n9", "boot", 1, "1"))
    with pytest.raises(RunBusyError, match="job 8"):
        hr.save(run.root, {}, step=2)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert hr.save(run.root, {}, step=2).attempt == 5


def test_a_claim_of_an_older_version_says_nothing_of_holding_and_holds(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    begin(run)
    facts = json.loads(run.attempt(1).claim.read_bytes())
    del facts["holds"]
    run.attempt(1).claim.write_text(json.dumps(facts))
    holder = read_holder(run, 1)
    assert holder is not None
    assert holder.holds


def test_a_run_made_anew_at_the_same_place_is_another_one(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", {}, step=1)
    (tmp_path / "run").rename(tmp_path / "old")
    assert hr.save(tmp_path / "run", {}, step=1).attempt == 1
    assert hr.save(tmp_path / "old", {}, step=2).attempt == 1


def test_ranks_agree_on_the_attempt_and_on_the_refusal(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with talking(SESSION, run) as session:
        assert session() == "in 0"
        refused = run_ranks(3, lambda ranks: hr.save(run, small_state(3), step=3, comm=ranks))
        assert {type(each) for each in refused} == {RunBusyError}
    saved = unwrap(run_ranks(3, lambda ranks: hr.save(run, small_state(3), step=3, comm=ranks).name))
    assert set(saved) == {"g000000000003-a0002"}


@pytest.mark.mpi
def test_under_mpiexec_one_attempt_for_all_ranks_each_time_the_script_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for words, names in ((["1=1", "2=2"], ["1-a0001", "2-a0001"]), (["2=2", "3=3"], ["2-a0001", "3-a0002"])):
        done = mpiexec(2, [sys.executable, "-c", SAVE, str(run), *words])
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.split()) == sorted(f"g{int(n[0]):012d}-{n[2:]}" for n in names for _ in range(2))


@pytest.mark.parametrize("step", [0, 1])
def test_an_unreadable_attempt_is_a_typed_error(tmp_path: Path, step: int) -> None:
    hr.save(tmp_path / "run", {}, step=0)
    (tmp_path / "run" / "attempts").rename(tmp_path / "gone")
    (tmp_path / "run" / "attempts").write_text("")
    with pytest.raises(RunDirectoryError) as caught:
        hr.save(tmp_path / "run", {}, step=step)
    assert caught.value.hint
