"""One training for every template: 4 ranks, numpy's own generator, sums in the order of the ranks.

Each rank leaves OUT/RUN-NAME/RANK.json, and in RANK.begins a line an attempt: the step that its loop began with. Steps,
seconds a step and OUT come from MATRIX_STEPS, MATRIX_PAUSE, MATRIX_OUT; torchrun's ranks talk through gloo, all others
through MPI. `expected` computes the same without either, and without hpcresume.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np

SIZE = 24
RANKS = 4


def begin() -> tuple[np.ndarray, np.ndarray]:
    """Weights and momentum."""
    return np.zeros(SIZE), np.zeros(SIZE)


def contribution(random: np.random.RandomState, weights: np.ndarray) -> np.ndarray:
    """One rank's gradient."""
    return random.standard_normal(SIZE) + 0.01 * weights


def move(weights: np.ndarray, momentum: np.ndarray, gradients: list[np.ndarray]) -> None:
    """One step of all."""
    momentum *= 0.9
    momentum += sum(gradients[1:], gradients[0]) / len(gradients)
    weights -= 0.01 * momentum


def final(weights: np.ndarray, momentum: np.ndarray, random: np.random.RandomState) -> dict[str, object]:
    """All of a rank's state, letter for letter."""
    return {"weights": weights.tobytes().hex(), "momentum": momentum.tobytes().hex(), "next": random.random().hex()}


def expected(steps: int) -> list[dict[str, object]]:
    """The final state of each rank of a training that nothing ever disturbed."""
    weights, momentum = begin()
    randoms = [np.random.RandomState(17 + rank) for rank in range(RANKS)]
    for _ in range(steps):
        move(weights, momentum, [contribution(random, weights) for random in randoms])
    return [final(weights, momentum, random) for random in randoms]


class OverMPI:
    """Ranks under srun or mpiexec."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self.world = MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size

    def gather(self, mine: np.ndarray) -> list[np.ndarray]:
        """What every rank has, in the order of the ranks."""
        return self.world.allgather(mine)


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


def main() -> str:
    """Train; leave the final state; its digest is what submitit gives back."""
    import hpcresume as hr

    ranks = OverGloo() if "TORCHELASTIC_RUN_ID" in os.environ else OverMPI()
    assert ranks.size == RANKS, ranks.size
    np.random.seed(17 + ranks.rank)
    weights, momentum = begin()
    run = os.environ["HPCRESUME_RUN"]
    out = Path(os.environ["MATRIX_OUT"]) / Path(run).name
    out.mkdir(parents=True, exist_ok=True)
    begun = False
    with hr.session(run, every="25 steps", reaction=0.0) as s:
        s.track(weights=weights, momentum=momentum)
        for step in s.steps(int(os.environ["MATRIX_STEPS"])):
            if not begun:
                begun = True
                with (out / f"{ranks.rank}.begins").open("a") as begins:
                    begins.write(f"{step}\n")
            time.sleep(float(os.environ["MATRIX_PAUSE"]))
            move(weights, momentum, ranks.gather(contribution(np.random, weights)))
    (out / f"{ranks.rank}.json").write_text(json.dumps(final(weights, momentum, np.random)))
    return "finished"


if __name__ == "__main__":
    main()
