"""What each job does: logistic regression by stochastic gradient descent, in numpy, in an `hr.session`."""

from __future__ import annotations

import time

import numpy as np

import hpcresume as hr

FEATURES = 20


def make_data(samples: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """The same points for everybody, with the labels of a hidden plane and some noise."""
    rng = np.random.default_rng(1)
    points = rng.standard_normal((samples, FEATURES))
    plane = rng.standard_normal(FEATURES)
    return points, (points @ plane + rng.standard_normal(samples) > 0).astype(float)


def train(rate: float, steps: int = 300, pause: float = 0.01, *, run: str) -> dict[str, object]:
    """Train with one learning rate; every rank takes its share of each batch.

    Args:
        rate: the learning rate.
        steps: in the whole run, however many attempts it takes.
        pause: seconds added to each step, so that there is something to watch.
        run: the run's directory; `hr.Resumable` gives each job its own.
    """
    points, labels = make_data()
    weights = np.zeros(FEATURES)
    with hr.session(run, every="20min") as s:
        s.track(weights=weights)
        batches = s.batches(range(len(points)), batch_size=32, seed=0, collate_fn=list)
        for step in s.steps(steps):
            batch = next(batches)
            guess = 1 / (1 + np.exp(-points[batch] @ weights))
            # The ranks of one job walk together: each takes its own part of the batch, and all take the same step.
            weights -= rate * mean_over_ranks(s, points[batch].T @ (guess - labels[batch]) / len(batch))
            if step % 50 == 0:
                s.log(loss=loss(points, labels, weights))
            time.sleep(pause)
    wrong = float(np.mean((points @ weights > 0) != labels.astype(bool)))
    return {"rate": rate, "rank": s.rank, "ranks": s.size, "attempts": s.attempt,
            "loss": loss(points, labels, weights), "wrong": wrong}  # fmt: skip


def loss(points: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The mean cross entropy, in nats."""
    scores = points @ weights
    return float(np.mean(np.logaddexp(0, scores) - labels * scores))


def mean_over_ranks(s: hr.Session, gradient: np.ndarray) -> np.ndarray:
    """One rank alone is done already; several have torch's process group (local executor) or MPI (Slurm)."""
    if s.size == 1:
        return gradient
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        import torch

        total = torch.from_numpy(gradient)
        dist.all_reduce(total)
        return total.numpy() / s.size
    from mpi4py import MPI

    return MPI.COMM_WORLD.allreduce(gradient) / s.size
