"""Row 11 of the reliability matrix: 200 schedules of signals, each one collective save at one step, and no hang.

50 are real signals to fresh processes under a real mpiexec, behind the shim that the supervisor uses; 150 run the
same engine on ranks that are threads, warned at random instants. The trainings never end by themselves: a lost
warning would be a hang, and a hang is a failure.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.io.files import Files, substituted
from hpcresume.session.attempt import open_attempt
from hpcresume.session.engine import Engine
from hpcresume.session.options import read_options
from hpcresume.session.outcomes import Stopped
from hpcresume.session.tracking import Tracked
from hpcresume.session.warnings_seen import WarningsSeen
from hpcresume.testing.thread_ranks import run_ranks, unwrap
from tests.session.scripts import SHIM, decision, events
from tests.support.mpi import mpi_command, mpi_environment

DRIVER = str(Path(__file__).with_name("signal_driver.py"))
SEED = 20240611
REAL, SIMULATED = 50, 150

EARLY = ("first", "numpy", "hpcresume")
ARMED = ("open", "tracked", "step:0", "step:1", "step:7", "step:40", "collective:0", "collective:9", "collective:33")
DURING = ("saving:1", "saving:2", "saving:5", "leaving")


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def real_schedule(number):
    """Schedule `number`: a first shot that warns, perhaps more that must change nothing."""
    rng = random.Random(SEED + number)
    kind = ("early", "armed", "outside", "armed", "many")[number % 5]
    rank = rng.choice([-1, 0, 1])
    if kind == "early":
        shots = [[rng.choice(EARLY), rank, rng.choice(["USR1", "USR2"]), rng.choice([1, 3])]]
    elif kind == "outside":
        shots = [["outside", rng.choice([-1, 0, 1, "mpiexec"]), rng.choice(["USR1", "USR2"]), rng.uniform(0, 1.2)]]
    else:
        count = rng.choice([1, 10, 1000]) if kind == "many" else 1
        shots = [[rng.choice(ARMED), rank, rng.choice(["USR1", "USR2", "TERM", "HUP"]), count]]
    for _ in range(rng.choice([0, 1, 2, 3])):
        shots.append([rng.choice(DURING), rng.choice([-1, 0, 1]), rng.choice(["USR1", "TERM"]), rng.choice([1, 5])])
    return {"shots": shots, "foreign": rng.random() < 0.3, "fork": rng.random() < 0.3}


def shoot_from_outside(schedule, out, mpiexec):
    """Send what the schedule has for "outside", once both ranks have run their first instruction."""
    end = time.monotonic() + 30
    while not all((out / f"up-{rank}").exists() for rank in (0, 1)):
        assert time.monotonic() < end, "the ranks never began"
        time.sleep(0.01)
    for moment, who, name, delay in schedule["shots"]:
        if moment == "outside":
            time.sleep(delay)
            pids = [int((out / f"up-{rank}").read_text()) for rank in (0, 1)]
            targets = {-1: pids, 0: pids[:1], 1: pids[1:], "mpiexec": [mpiexec.pid]}[who]
            for pid in targets:
                os.kill(pid, signal.Signals[f"SIG{name}"])


def run_real(schedule, run, out, timeout=60):
    out.mkdir()
    argv = [*SHIM, sys.executable, DRIVER, str(run), str(out), json.dumps(schedule)]
    child = subprocess.Popen(
        mpi_command(2, argv), env=mpi_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        shoot_from_outside(schedule, out, child)
        _, err = child.communicate(timeout=timeout)
    except BaseException:
        kill_with_ranks(child, out)
        raise
    return child.returncode, err, [json.loads((out / f"end-{rank}.json").read_text()) for rank in (0, 1)]


def kill_with_ranks(child, out):
    """A failure must leave nothing behind: mpiexec and the ranks, by the pids that they wrote."""
    child.kill()
    child.communicate()
    for path in out.glob("up-*"):
        try:
            os.kill(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue


def check_one_save(run, steps):
    """One collective save, the same step on all ranks, and what was saved verifies."""
    assert len(set(steps)) == 1, steps
    names = [event["event"] for event in events(run, 1)]
    assert {name: names.count(name) for name in ("save-begin", "saved", "warning", "stop", "exit")} == {
        "save-begin": 1, "saved": 1, "warning": 1, "stop": 1, "exit": 1,
    }  # fmt: skip
    (generation,) = hr.Generations(run).list()
    assert generation.step == steps[0]
    assert hr.Generations(run).verify(generation).ok
    assert decision(run, 1)["generation"] == generation.name


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize("number", range(REAL))
def test_real_signals_to_fresh_processes_are_one_save_at_one_step(run, tmp_path, number):
    schedule = real_schedule(number)
    print(f"seed {SEED + number}: {json.dumps(schedule)}")
    code, err, ends = run_real(schedule, run, tmp_path / "out")
    assert [end["end"] for end in ends] == ["Stopped", "Stopped"], (ends, err)
    assert code == 75, err
    first = schedule["shots"][0][0]
    assert first == "outside" or any(first in end["fired"] for end in ends), "the fault did not fire"
    for moment, rank, _, _ in schedule["shots"]:
        if moment in ("saving:1", "saving:2", "leaving") and rank in (0, -1):
            assert moment in ends[0]["fired"], "the second warning, in the middle of the save, did not fire"
    check_one_save(run, [end["step"] for end in ends])


class Interrupting(Files):
    """Warns a rank when the N-th file is synced: in the middle of a save, on whichever thread that is."""

    def __init__(self, at, warn):
        self.at = at
        self.warn = warn

    def fsync(self, fd):
        self.at -= 1
        if self.at == 0:
            self.warn()
        super().fsync(fd)


def simulate(ranks, run, plan, seen):
    """One rank's session, without signals: what a handler would note is noted by the schedule."""
    options = read_options(
        run, every="1000000 steps", keep=3, comm=ranks, write_path="posix", read_back="all", watchdog="off",
        reaction=plan["reaction"], save_failures=3, reopen=False, signals=(),
    )  # fmt: skip
    attempt = open_attempt(options, {})
    tracked = Tracked()
    weights = np.zeros(2)
    tracked.add({"weights": weights})
    engine = Engine(attempt, tracked, options, seen[ranks.rank], None)

    def hit(moment):
        for when, rank, number in plan["shots"]:
            if when == moment and rank == ranks.rank:
                seen[rank].note(number, time.monotonic())
                seen[rank].arrivals += 1

    try:
        hit(-1)
        going = engine.begin(10**9)
        while going:
            weights += engine.step
            hit(engine.step)
            going = engine.boundary()
    except Stopped as stopped:
        attempt.leave_together(0)
        return stopped.step
    raise AssertionError("the training ended by itself")


@pytest.mark.parametrize("number", range(SIMULATED))
def test_warnings_at_random_instants_on_ranks_in_threads_are_one_save_at_one_step(run, number):
    rng = random.Random(SEED + 1000 + number)
    size = rng.choice([1, 2, 3, 4])
    shots = [
        (rng.choice([-1, 0, rng.randrange(200)]), rng.randrange(size), int(rng.choice([10, 12, 15, 1])))
        for _ in range(rng.choice([1, 1, 2, 5, 50]))
    ]
    plan = {"shots": shots, "reaction": rng.choice([0, 0.001, 0.25])}
    print(f"seed {SEED + 1000 + number}: {size} ranks, {plan}")
    seen = [WarningsSeen() for _ in range(size)]
    late = rng.randrange(size)
    files = Interrupting(rng.choice([3, 6, 9]), lambda: seen[late].note(10, time.monotonic()))
    with substituted(files):
        steps = unwrap(run_ranks(size, lambda ranks: simulate(ranks, run, plan, seen), timeout=30))
    assert files.at <= 0, "nothing was interrupted"
    assert any(seen)
    check_one_save(run, steps)
    newest_shot = min(max(when + 1, 0) for when, _, _ in shots)
    assert steps[0] <= newest_shot + 32, "a warning was heard too late"


def test_there_are_200_schedules_and_50_of_them_are_real():
    assert REAL >= 50
    assert REAL + SIMULATED >= 200
    assert len({json.dumps(real_schedule(n)) for n in range(REAL)}) == REAL
