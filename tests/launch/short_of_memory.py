"""A training that needs more memory than there is, until its batches are cut small enough.

`python short_of_memory.py RUN STEPS OUT FITS HOW`: FITS samples at a time fit; more raise MemoryError (HOW "raise"), or
the last rank is killed as the kernel does it ("kill"). Least squares on 32 samples a rank and step; the gradient of the
whole batch is added up from its pieces, weighted by their sizes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

import hpcresume as hr

BATCH, WIDTH = 32, 8


def main(run: str, steps: int, out: Path, fits: int, how: str) -> None:
    """Train, and leave what was seen and what came of it."""
    world = MPI.COMM_WORLD
    data = np.random.default_rng(5).standard_normal((400, WIDTH))
    target = data @ np.arange(WIDTH)
    weights = np.zeros(WIDTH)
    seen = []
    with hr.session(run, every="5 steps", reaction=0.0) as s:
        s.track(weights=weights)
        batches = s.batches(range(len(data)), batch_size=BATCH, seed=3, collate_fn=list)
        for step in s.steps(steps):
            batch = np.array(next(batches))
            seen.append([step, batch.tolist()])
            gradient = np.zeros(WIDTH)
            for piece in np.array_split(batch, s.micro_batches):
                if len(piece) > fits:
                    fail(how, world.rank == world.size - 1)
                residue = data[piece] @ weights - target[piece]
                gradient += data[piece].T @ residue / len(batch)  # each piece by its share of the batch
            world.Allreduce(MPI.IN_PLACE, gradient)
            weights -= 0.1 * gradient / world.size
    facts = {"seen": seen, "weights": weights.tolist(), "pieces": s.micro_batches}
    (out / f"{world.rank}.json").write_text(json.dumps(facts))


def fail(how: str, last: bool) -> None:
    """As Python does, or as the kernel does."""
    if how == "raise":
        raise MemoryError
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
