"""The training of every cell: two ranks, each with numpy's own generator, sums in the order of the ranks.

Where its results lie, and what shall go wrong, stand in OUT, which is `MATRIX_OUT/NAME-OF-THE-RUN`. Rank 0 leaves
OUT/steps, a line a step with the weights it had then; each rank its whole final state in OUT/RANK.json. It is quick up
to step `QUICK`, then slow, so that an event meets it at work, until somebody makes the file OUT/hurry.
`expected` computes the same without ranks and without hpcresume.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BALLAST", "EVERY", "FAULTS", "PACE", "QUICK", "RANKS", "STEPS", "expected", "train"]

SIZE = 24
RANKS = 2
STEPS = 160
EVERY = 20
QUICK = 45
PACE = 1.0
"""Seconds a slow step takes."""
FAULTS = ("crash", "memory", "exit-0")
"""Files in OUT at whose sight the training goes wrong, once: rank 1 takes the file away first."""
BALLAST = 5_000_000
"""Doubles that each rank carries besides where OUT/ballast was made beforehand: its saves take a while."""


def begin() -> tuple[np.ndarray, np.ndarray]:
    """Weights and momentum."""
    return np.zeros(SIZE), np.zeros(SIZE)


def move(weights: np.ndarray, momentum: np.ndarray, gradients: list[np.ndarray]) -> None:
    """One step of all."""
    momentum *= 0.9
    momentum += gradients[0] + gradients[1]
    weights -= 0.01 * momentum


def contribution(random: Any, weights: np.ndarray) -> np.ndarray:
    """One rank's gradient; of its generator, or of numpy's own."""
    return np.asarray(random.standard_normal(SIZE) + 0.01 * weights)


def final(weights: np.ndarray, momentum: np.ndarray, random: Any) -> dict[str, str]:
    """All of a rank's state, letter for letter."""
    following = float(random.random())
    return {"weights": weights.tobytes().hex(), "momentum": momentum.tobytes().hex(), "next": following.hex()}


def expected() -> tuple[list[str], list[dict[str, str]]]:
    """Of a training that nothing ever disturbed: the weights after each step, and each rank's final state."""
    weights, momentum = begin()
    randoms = [np.random.RandomState(17 + rank) for rank in range(RANKS)]
    steps = []
    for _ in range(STEPS):
        move(weights, momentum, [contribution(random, weights) for random in randoms])
        steps.append(float(weights.sum()).hex())
    return steps, [final(weights, momentum, random) for random in randoms]


class OverMPI:
    """Ranks under srun or mpiexec."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self.world = MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size

    def gather(self, mine: np.ndarray) -> list[np.ndarray]:
        """What every rank has, in the order of the ranks."""
        return list(self.world.allgather(mine))


class OverGloo:
    """Ranks under torchrun."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        dist.init_process_group("gloo")
        self.torch, self.dist = torch, dist
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, mine: np.ndarray) -> list[np.ndarray]:
        """What every rank has, in the order of the ranks."""
        everyone = [self.torch.empty(SIZE, dtype=self.torch.float64) for _ in range(self.size)]
        self.dist.all_gather(everyone, self.torch.from_numpy(mine))
        return [each.numpy() for each in everyone]


def train(number: int = 0, *, run: str) -> str:
    """Train to the end; `number` only makes the calls of an array differ."""
    import hpcresume as hr

    ranks = OverGloo() if "TORCHELASTIC_RUN_ID" in os.environ else OverMPI()
    assert ranks.size == RANKS, f"{ranks.size} ranks"
    np.random.seed(17 + ranks.rank)
    weights, momentum = begin()
    out = Path(os.environ["MATRIX_OUT"]) / Path(run).name
    ballast = np.zeros(BALLAST if (out / "ballast").exists() else 1)
    with hr.session(run, every=f"{EVERY} steps", reaction=0.0) as s:
        s.track(weights=weights, momentum=momentum, ballast=hr.RankLocal(ballast))
        for step in s.steps(STEPS):
            if ranks.rank == 1 and step >= QUICK:
                _go_wrong(out)
            move(weights, momentum, ranks.gather(contribution(np.random, weights)))
            if ranks.rank == 0:
                with (out / "steps").open("a") as lines:
                    lines.write(f"{step} {float(weights.sum()).hex()}\n")
            if step >= QUICK and not (out / "hurry").exists():
                time.sleep(PACE)
    (out / f"{ranks.rank}.json").write_text(json.dumps(final(weights, momentum, np.random)))
    return f"finished {number}"


def _go_wrong(out: Path) -> None:
    for fault in FAULTS:
        if (out / fault).exists():
            (out / fault).rename(out / f"{fault}-happened")
            if fault == "crash":
                raise ValueError("a bug in the training")
            if fault == "memory":
                resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.RLIM_INFINITY))
                np.ones(2**31)  # 16 GiB, more than the limit of 8
            sys.exit(0)


if __name__ == "__main__":
    train(run=os.environ["HPCRESUME_RUN"])
