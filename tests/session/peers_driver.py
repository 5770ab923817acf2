"""One of two ranks that do not do the same, started by tests under mpiexec: peers_driver.py SCENARIO RUN OUT [PLACE].

Writes OUT/SCENARIO-N.json, what the scenario returned on this rank, unless the rank was ended before.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import hpcresume as hr
from hpcresume.checkpoint import readback
from hpcresume.session import attempt, engine, saver

RANK: int = MPI.COMM_WORLD.rank
SLOW = 2.0
"""Seconds by which rank 1 is late."""


def ignored(s: hr.Session, step: int) -> None:
    """Nothing happens in this step."""


def warned_in_step_2(s: hr.Session, step: int) -> None:
    """A real signal to rank 0, waited for."""
    if (RANK, step) == (0, 2):
        os.kill(os.getpid(), signal.SIGUSR1)
        while not s.poll():
            time.sleep(0.001)


def train(run: str, *, during: Callable[[hr.Session, int], object] = ignored, **options: Any) -> Any:
    """Ten small steps; what was summed."""
    weights = np.zeros(2)
    with hr.session(run, **{"every": "1000 steps", "reaction": 0, **options}) as s:
        s.track(weights=weights)
        for step in s.steps(10):
            weights += step
            during(s, step)
    return weights.tolist()


def late_error(run: str) -> Any:
    """Rank 1 raises in the last lines of the block, when rank 0 has long come to its end."""
    with hr.session(run, every="1000 steps") as s:
        for _ in s.steps(3):
            pass
        if RANK == 1:
            time.sleep(SLOW)
            raise ValueError("the last line of the block")
    return "left"


def slow_to_leave(run: str) -> Any:
    """Rank 1 takes its time to close its files; when each rank had done so, and when it came out of the block."""
    original, closed = attempt.Attempt.close_files, [0.0]

    def close_files(self: attempt.Attempt) -> None:
        if RANK == 1:
            time.sleep(SLOW)
        original(self)
        closed[0] = time.monotonic()

    attempt.Attempt.close_files = close_files  # type: ignore[method-assign]
    train(run)
    return [closed[0], time.monotonic()]


PLACES: dict[str, tuple[Any, str]] = {
    "open the run": (attempt, "open_run"),
    "begin": (engine.Engine, "_agree_on_what_is_tracked"),
    "restore": (engine.Engine, "_bytes_to_restore"),
    "restore, reading": (engine, "restore_newest"),
    "probe": (engine.Engine, "_prepare_to_save"),
    "vote": (engine, "cast"),
    "agree on the deadline": (engine.Engine, "_agree_on_plan"),
    "save step 4": (saver.Saver, "_write"),
    "save step 4, reading back": (readback, "compare"),
    "finish": (hr.Session, "_close_the_run"),
    "write DONE": (attempt.Attempt, "mark_done"),
    "exit": (attempt.Attempt, "leave_together"),
}


def stopped(run: str, place: str) -> Any:
    """Rank 1 stands still as by SIGSTOP when it first comes to a place."""
    owner, name = PLACES[place]
    original = getattr(owner, name)

    def stop(*args: Any, **options: Any) -> Any:
        if RANK == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return original(*args, **options)

    setattr(owner, name, stop)
    every = "1000 steps" if place in ("finish", "write DONE", "exit") else "4 steps"
    return train(run, during=warned_in_step_2 if "deadline" in place else ignored, watchdog="3s", every=every)


def differing(run: str) -> Any:
    """One session after the other, in each of which rank 1 differs in one thing; the error of each, its text, and the
    steps that were begun."""
    found: dict[str, list[Any]] = {}
    for name, build in DIFFERENCES.items():
        steps: list[int] = []
        try:
            with hr.session(f"{run}-{name}", every="1000 steps") as s:
                build(s)
                for step in s.steps(1):
                    steps.append(step)
            found[name] = ["done", "", steps]
        except hr.errors.HpcresumeError as error:
            found[name] = [type(error).__name__, str(error), steps]
    return found


def other_order(s: hr.Session) -> None:
    """The same names with the same things, tracked in another order."""
    things = {"a": np.zeros(2), "b": np.ones(3)}
    for name in sorted(things, reverse=RANK == 1):
        s.track(**{name: things[name]})


DIFFERENCES: dict[str, Callable[[hr.Session], object]] = {
    "seed": lambda s: s.batches(range(10), 2, seed=3 + RANK),
    "batch_size": lambda s: s.batches(range(10), 2 + RANK),
    "length": lambda s: s.batches(range(10 + RANK), 2),
    "shuffle": lambda s: s.batches(range(10), 2, shuffle=RANK == 0),
    "shape": lambda s: s.track(x=np.zeros(2 + RANK)),
    "dtype": lambda s: s.track(x=np.zeros(2, np.float32 if RANK else np.float64)),
    "order": other_order,
}


def drifting(run: str) -> Any:
    """A plain array that is not the same on the ranks, saved three times, and then all comes to an early end."""
    weights = np.array([float(RANK)])
    with hr.session(run, every="2 steps") as s:
        s.track(weights=weights)
        for step in s.steps(10):
            if step == 6:
                break
    return weights.tolist()


def main(scenario: str, run: str, out: str, *more: str) -> None:
    """Do it and leave what came of it."""
    np.random.seed(RANK)
    result: Any = None
    try:
        result = globals()[scenario](run, *more)
    except BaseException as error:
        result = type(error).__name__
        raise
    finally:
        Path(out, f"{scenario}-{RANK}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
