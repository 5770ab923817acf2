"""A numpy training on several ranks, started by tests under mpiexec: mpi_driver.py RUN OUT SCENARIO.

Writes OUT/rank-N.json: what this rank saw and how its session ended. Imports neither torch nor the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import hpcresume as hr
from hpcresume.io.files import Files, substituted

STEPS = 40
comm = MPI.COMM_WORLD
seen: dict[str, Any] = {"samples": {}, "losses": {}}


class Items:
    """Items are their own indices, with augmentation."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> float:
        return index + float(np.random.random()) / 4


class SlowOnce(Files):
    """Rank 0's first fsync of bulk data takes longer than ranks otherwise wait for each other."""

    seconds = 5.0 if comm.rank == 0 else 0.0

    def fsync(self, fd: int) -> None:
        if os.fstat(fd).st_size > 1 << 20:
            time.sleep(self.seconds)
            self.seconds = 0.0
        super().fsync(fd)


def warn_myself(s: hr.Session, number: int = signal.SIGUSR1) -> None:
    """A real signal to this rank, waited for."""
    os.kill(os.getpid(), number)
    while not s.poll():
        time.sleep(0.001)


def act(s: hr.Session, scenario: str, step: int) -> bool:
    """Do what the scenario says in the middle of a step; True to leave the loop."""
    name, _, argument = scenario.partition(":")
    at, _, on = argument.partition("@")
    mine = at.isdigit() and int(at) == step and (not on or int(on) == comm.rank)
    if name == "poll":
        seen.setdefault("poll", []).append([s.poll(), s.poll(collective=True), s.poll()])
    if not mine:
        return False
    if name == "raise":
        raise ValueError("a bug on one rank")
    if name == "hang":
        time.sleep(600)
    if name == "exit":
        sys.exit(0)
    if name == "finish":
        s.finish()
    if name in ("warn", "poll"):
        warn_myself(s)
    return name == "break"


def train(s: hr.Session, scenario: str) -> None:
    """The training: a reduction in every step, numbers drawn on every rank."""
    weights = np.zeros(4)
    local = np.zeros(1)
    s.track(weights=weights)
    if os.environ.get("TRACK") == "local":
        s.track(local=hr.RankLocal(local))
    if os.environ.get("TRACK") == "large":
        s.track(large=np.zeros(6_000_000))
    if os.environ.get("TRACK") == "uneven" and comm.rank == 1:
        s.track(extra=np.zeros(1))
    batches = s.batches(Items(), 3, seed=11, collate_fn=list)
    for step in s.steps(STEPS):
        batch = next(batches)
        total = np.empty(4)
        comm.Allreduce(np.random.random(4) + sum(batch), total)
        weights += total
        seen["samples"][step] = [int(x) for x in batch]
        seen["losses"][step] = float(weights[0]).hex()
        if act(s, scenario, step):
            break
    seen["final"] = weights.tobytes().hex()
    seen["rng"] = repr(np.random.get_state()[1].tolist())


def main() -> None:
    """Run one attempt."""
    run, out, scenario = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    np.random.seed(100 + comm.rank)
    options = json.loads(os.environ.get("OPTIONS", "{}"))
    slow = substituted(SlowOnce()) if scenario == "slow-save" else contextlib.nullcontext()
    try:
        with slow, hr.session(run, **{"every": "1000 steps", **options}) as s:
            train(s, scenario)
        seen["end"] = "done"
    except BaseException as error:
        seen["end"] = type(error).__name__
        seen["error"] = str(error)
        seen["step"] = getattr(error, "step", None)
        raise
    finally:
        (out / f"rank-{comm.rank}.json").write_text(json.dumps(seen))
        comm.Barrier()  # mpiexec ends the others with the first that exits by another code than 0


if __name__ == "__main__":
    main()
