"""Functions that submitit runs in tests: a small training in numpy whose every result is known."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

import hpcresume as hr


def expected(steps: int, rank: int = 0) -> float:
    """The state of a training that was never interrupted."""
    rng = np.random.RandomState(7 + rank)
    weights = np.zeros(4)
    for _ in range(steps):
        weights = weights * 0.9 + rng.standard_normal(4)
    return float(weights.sum())


def train(run: str, steps: int = 40, seconds: float = 0.02, out: str = "", warn_at: tuple[int, ...] = (),
          number: int = signal.SIGUSR2, crash_at: int = -1) -> dict[str, object]:  # fmt: skip
    """Train; at each step of `warn_at` the last rank gets a real signal, once a run."""
    state = np.zeros(4)
    with hr.session(run, every="1000 steps", reaction=0) as s:
        np.random.seed(7 + s.rank)
        s.track(weights=hr.RankLocal(state))
        for step in s.steps(steps):
            state[:] = state * 0.9 + np.random.standard_normal(4)
            if out:
                note(Path(out) / f"rank-{s.rank}.jsonl", step=step, pid=os.getpid(), t=time.time())
            if step == crash_at and s.rank == s.size - 1:
                raise ZeroDivisionError(f"at step {step}")
            if step in warn_at and s.rank == s.size - 1:
                os.kill(os.getpid(), number)
                while not s.poll():
                    time.sleep(0.001)
            time.sleep(seconds)
    return {"rank": s.rank, "size": s.size, "attempt": s.attempt, "sum": float(state.sum()), "run": str(s.run)}


def train_sharing_only_the_run(run: str, **more: Any) -> dict[str, object]:
    """At a first start the supervisor's directory lies in its node's /tmp, and /tmp of another node is another one."""
    if os.environ["SLURM_PROCID"] != "0":
        os.environ["HPCRESUME_LAUNCH_DIR"] = "/not-on-this-node"
    return train(run, **more)


def note(path: Path, **fields: object) -> None:
    """A line that survives a kill."""
    with path.open("a") as file:
        file.write(json.dumps(fields) + "\n")


def plain(a: int, b: int) -> int:
    """Nothing of ours."""
    return a + b


class Checkpointed:
    """submitit's own way: state in the object, a `checkpoint` that hands it on."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, out: str, steps: int) -> int:
        while self.done < steps:
            self.done += 1
            note(Path(out) / "checkpointed.jsonl", step=self.done, pid=os.getpid())
            time.sleep(0.05)
        return self.done

    def checkpoint(self, out: str, steps: int) -> object:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, out, steps)
