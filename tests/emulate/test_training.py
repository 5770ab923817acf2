"""A real training with a real session: whatever the scheduler does, the end is the one of an undisturbed run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcresume.config.timetable import AtStep, EmulatedJob, NodeKill, Preemption, RankKill, SignalPlan, TimetableEntry
from hpcresume.emulate.job import emulate
from hpcresume.emulate.lines import line
from hpcresume.emulate.result import EmulationResult
from tests.support.launching import ledger
from tests.support.mpi import child_environment

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

TRAINING = str(Path(__file__).with_name("numpy_training.py"))
STEPS = 90
BATCH = SignalPlan(signal.SIGUSR1, to_batch=True, lead=1.5)
RANKS = SignalPlan(signal.SIGUSR1, to_batch=False, lead=1.5)

SCENARIOS: dict[str, tuple[tuple[TimetableEntry, ...], dict[str, object], list[str]]] = {
    "preempted, the batch script is warned": ((Preemption(AtStep(40)),), {"signal": BATCH}, ["preempted"]),
    "preempted, the ranks are warned": ((Preemption(AtStep(40)),), {"signal": RANKS}, ["preempted"]),
    "preempted by TERM, old Slurm": ((Preemption(AtStep(40)),), {"signal": None, "slurm": "22.05"}, ["preempted"]),
    "a rank is killed": ((RankKill(AtStep(50), 1),), {}, ["crash"]),
    "the batch node is lost": ((NodeKill(AtStep(50), 0),), {}, ["node-failure"]),
    "the other node is lost": ((NodeKill(AtStep(50), 1),), {}, ["node-failure"]),
    "warned, and killed before it can save": (
        (Preemption(AtStep(50)), RankKill(AtStep(50), 0)), {"signal": BATCH}, ["preempted"],
    ),
}  # fmt: skip


def train(
    directory: Path, *entries: TimetableEntry, pause: float = 0.01, **changes: object
) -> tuple[EmulationResult, Path]:
    """One emulated job in `directory`; returns the result and where the final states are."""
    out = directory / "out"
    out.mkdir(parents=True)
    command = (
        "env",
        "OMP_NUM_THREADS=1",
        sys.executable,
        TRAINING,
        str(directory / "run"),
        str(STEPS),
        str(out),
        str(pause),
    )
    settings = {"nodes": 2, "requeue_delay": 0.0, "grace": 20.0, "kill_wait": 1.0, **changes}
    job = EmulatedJob(command, timetable=entries, **settings)  # type: ignore[arg-type]
    # Shown by pytest when the test fails.
    return emulate(job, emit=lambda event: print(line(event), flush=True), output=sys.stdout.buffer), out


def final(out: Path) -> list[dict[str, list[str]]]:
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


def causes(run: Path) -> list[str]:
    numbers = [int(path.name) for path in sorted((run / "attempts").iterdir())]
    return [line["cause"] for n in numbers for line in ledger(run, n) if line["event"] == "ended"]


@pytest.fixture(scope="module", autouse=True)
def _children_import_what_we_import():
    import hpcresume

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(hpcresume.__file__).parents[1]))
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict[str, list[str]]]:
    result, out = train(tmp_path_factory.mktemp("undisturbed"))
    assert [attempt.state for attempt in result.attempts] == ["COMPLETED"]
    ranks = final(out)
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["next"] != ranks[1]["next"]
    return ranks


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_the_final_state_is_that_of_an_undisturbed_run(tmp_path, undisturbed, scenario):
    entries, changes, expected = SCENARIOS[scenario]
    result, out = train(tmp_path, *entries, **changes)
    assert (result.exit_code, result.never_fired) == (0, ())
    assert [fired for attempt in result.attempts for fired in attempt.fired] == list(map(str, entries))
    assert causes(tmp_path / "run") == [*expected, "done"]
    assert final(out) == undisturbed


def test_time_limits_again_and_again_lead_to_the_same_end(tmp_path, undisturbed):
    result, out = train(tmp_path, signal=BATCH, time_limit=4.5, pause=0.05)
    assert result.exit_code == 0
    assert len(result.attempts) > 1
    assert causes(tmp_path / "run") == ["walltime"] * (len(result.attempts) - 1) + ["done"]
    assert final(out) == undisturbed


def test_a_run_that_was_cut_off_goes_on_in_another_emulation(tmp_path, undisturbed):
    first, _ = train(tmp_path, Preemption(AtStep(40)), max_attempts=1)
    assert (first.state, first.exit_code) == ("PENDING", 75)
    (tmp_path / "out").rename(tmp_path / "first")
    second, out = train(tmp_path)
    assert second.exit_code == 0
    assert causes(tmp_path / "run") == ["preempted", "done"]
    assert final(out) == undisturbed


def test_a_finished_run_is_not_touched_by_a_start_too_many(tmp_path):
    train(tmp_path)
    attempts = sorted((tmp_path / "run/attempts").iterdir())
    (tmp_path / "out").rename(tmp_path / "first")
    result, _ = train(tmp_path)
    assert (result.state, result.exit_code) == ("COMPLETED", 0)
    assert sorted((tmp_path / "run/attempts").iterdir()) == attempts


SLOW_TO_BEGIN = """#!/bin/bash
#SBATCH --ntasks=2 --requeue --open-mode=append --signal=B:USR1@60
trap '' USR1
export OMP_NUM_THREADS=1
sleep 1
exec hpcresume launch --run=run -- {python} {training} run 90 out 0.01
"""


def test_a_warning_that_came_before_the_supervisor_is_made_up_for(tmp_path, undisturbed):
    """The script's trap swallows it (modules load, Python starts); Slurm still says that the job is being preempted."""
    (tmp_path / "out").mkdir()
    (tmp_path / "job.sbatch").write_text(SLOW_TO_BEGIN.format(python=sys.executable, training=TRAINING))
    done = subprocess.run(
        [sys.executable, "-m", "hpcresume", "emulate", "--preempt", "0.3s", "--grace", "90s", "--", "job.sbatch"],
        cwd=tmp_path, env=child_environment(), capture_output=True, text=True, timeout=80, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning-lost" in [line["event"] for line in ledger(tmp_path / "run", 1)]
    assert causes(tmp_path / "run") == ["preempted", "done"]
    assert final(tmp_path / "out") == undisturbed
