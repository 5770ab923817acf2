"""A job whose ranks never come up is requeued a bounded number of times, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcresume.launch.barren import barren_starts, note_barren_start
from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import Budgets, PastAttempt
from hpcresume.policy.cause import ChildExit, Ending, Evidence
from hpcresume.policy.requeue import decide
from hpcresume.slurm.environment import SlurmEnvironment

CRASHED = PastAttempt(0, Cause.CRASH, decided="come-back")


def job(restart: int, job_id: str = "7") -> SlurmEnvironment:
    environ = {"SLURM_JOB_ID": job_id}
    if restart:
        environ["SLURM_RESTART_COUNT"] = str(restart)
    return SlurmEnvironment.from_environ(environ)


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize("known", [True, False])
def test_starts_without_an_attempt_are_counted_over_restarts_of_the_same_job(known: bool, tmp_path: Path) -> None:
    run = tmp_path / "run" if known else None
    if run is not None:
        run.mkdir()
        (run / "run.json").write_text("{}")
    for restart in range(3):
        assert len(barren_starts(run, job(restart))) == restart
        note_barren_start(run, job(restart), CRASHED)
    assert barren_starts(run, job(3, job_id="8")) == (), "another job's starts do not count"
    assert barren_starts(run, job(5)) == (), "a start in between that claimed an attempt breaks the row"


def test_ranks_that_are_killed_before_any_session_are_held_after_the_budget(tmp_path: Path) -> None:
    evidence = Evidence(child=ChildExit(code=137, signal=None))
    decisions = []
    for restart in range(6):
        slurm = job(restart)
        past = barren_starts(None, slurm)
        verdict = decide(Ending(Cause.CRASH, ("killed",)), evidence, past, None, Budgets())
        decisions.append(verdict.decision)
        if verdict.decision is Decision.HOLD:
            break
        note_barren_start(None, slurm, CRASHED)
    assert decisions == [Decision.COME_BACK, Decision.COME_BACK, Decision.HOLD]


@pytest.mark.parametrize("known", [True, False])
def test_a_job_of_another_cluster_or_of_another_run_with_the_same_number_does_not_count(known: bool, tmp_path: Path):
    """Clusters that share their users' home number their jobs alike; so does each small one that a test starts."""
    first, second = (tmp_path / name if known else None for name in ("a", "b"))
    here = replace(job(0), cluster="one", submit_dir=tmp_path / "a")
    note_barren_start(first, here, CRASHED)
    later = replace(here, restart_count=1)
    assert len(barren_starts(first, later)) == 1
    assert barren_starts(first, replace(later, cluster="two")) == ()
    assert barren_starts(second, replace(later, submit_dir=tmp_path / "b")) == ()


def test_outside_slurm_nothing_is_written(tmp_path: Path) -> None:
    note_barren_start(None, replace(job(0), job_id=None), CRASHED)
    assert not (tmp_path / "state").exists()
