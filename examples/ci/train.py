"""A small data-parallel training in numpy: which arm of two spirals does a point belong to? `python train.py FOLDER`

The run is kept in FOLDER/run. The training that finishes writes its last weights and momentum to FOLDER/final.npy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

import hpcresume as hr

STEPS, BATCH, WIDTH, RATE, MOMENTUM = 300, 64, 384, 0.05, 0.9


class Spirals:
    """Points (x, y) on two intertwined spirals, and which of the two: 0 or 1."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> tuple[np.ndarray, float]:
        arm, along = index % 2, (index // 2) / (len(self) // 2)
        angle = 3 * np.pi * along + np.pi * arm
        noise = np.random.normal(scale=0.02, size=2)  # seeded for each sample: a resumed training sees the same
        return along * np.array([np.cos(angle), np.sin(angle)]) + noise, float(arm)


def collate(samples: list[tuple[np.ndarray, float]]) -> tuple[np.ndarray, np.ndarray]:
    """A batch of points and labels, one column a sample."""
    points, labels = zip(*samples, strict=True)
    return np.stack(points, axis=1), np.array(labels)[None]


def new_weights() -> dict[str, np.ndarray]:
    """Three layers, the same on every rank."""
    draw = np.random.default_rng(0).standard_normal
    sides = {"first": (WIDTH, 2), "second": (WIDTH, WIDTH), "last": (1, WIDTH)}
    return {name: draw(shape) / np.sqrt(shape[1]) for name, shape in sides.items()}


def loss_and_gradients(
    weights: dict[str, np.ndarray], points: np.ndarray, labels: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    """Mean cross-entropy (nats) of a batch, and its gradient by each weight."""
    one = np.tanh(4 * weights["first"] @ points)
    two = np.tanh(weights["second"] @ one)
    score = weights["last"] @ two
    loss = float(np.mean(np.logaddexp(0, score) - labels * score))
    back = (1 / (1 + np.exp(-score)) - labels) / labels.size
    back_two = weights["last"].T @ back * (1 - two**2)
    back_one = weights["second"].T @ back_two * (1 - one**2)
    return loss, {"first": 4 * back_one @ points.T, "second": back_two @ one.T, "last": back @ two.T}


def main(folder: Path) -> None:
    """Train; stop when warned; go on where the last attempt stopped."""
    world = MPI.COMM_WORLD
    weights = new_weights()
    momentum = {name: np.zeros_like(each) for name, each in weights.items()}

    with hr.session(folder / "run", every="50 steps") as s:
        s.track(weights=weights, momentum=momentum)
        batches = s.batches(Spirals(), batch_size=BATCH, seed=0, collate_fn=collate)
        for step in s.steps(STEPS):
            loss, gradients = loss_and_gradients(weights, *next(batches))
            for name, gradient in gradients.items():
                world.Allreduce(MPI.IN_PLACE, gradient)
                momentum[name] *= MOMENTUM
                momentum[name] += gradient / world.size
                weights[name] -= RATE * momentum[name]
            s.log(loss=loss)
            if world.rank == 0 and (step + 1) % 10 == 0:
                print(f"step {step + 1}/{STEPS}  loss {loss:.3f}", flush=True)

    if world.rank == 0:
        np.save(folder / "final.npy", np.concatenate([a.ravel() for d in (weights, momentum) for a in d.values()]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
