"""A small real training on every rank: numpy only, momentum, noise from numpy's own generator, data parallel.

`python numpy_training.py RUN STEPS OUT [SECONDS_A_STEP]`: each rank writes its last weights, momentum
and next random number to OUT/RANK.json, so that two trainings can be compared bit for bit.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import hpcresume as hr


def main(run: str, steps: int, out: Path, pause: float = 0.01) -> None:
    """Train, then leave the final state."""
    world = MPI.COMM_WORLD
    np.random.seed(17 + world.rank)
    weights, momentum = np.zeros(50), np.zeros(50)
    with hr.session(run, every="15 steps", reaction=0.0) as session:
        session.track(weights=weights, momentum=momentum)
        for step in session.steps(steps):
            time.sleep(pause)
            gradient = np.random.standard_normal(50) + 0.01 * weights
            world.Allreduce(MPI.IN_PLACE, gradient)
            momentum *= 0.9
            momentum += gradient
            weights -= 0.01 * momentum
            session.log(loss=float(weights @ weights) + step)
    final = {"weights": [w.hex() for w in weights], "momentum": [m.hex() for m in momentum]}
    final["next"] = [float(np.random.random()).hex()]
    (out / f"{world.rank}.json").write_text(json.dumps(final))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), *map(float, sys.argv[4:]))
