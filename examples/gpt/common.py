"""What train.py and plain.py share: the model, one training step, and the record of what was really done.

Knows nothing of checkpoints: hpcresume is not imported here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import ByteWindows, standard_library_text
from model import ByteGPT
from mpi4py import MPI
from torch import Tensor, nn

__all__ = ["Trace", "average_gradients", "build", "dataset", "parser", "save_final", "train_step"]

SEED = 0
ACCUMULATE = 2
"""Micro-batches whose gradients are added up before the optimizer moves."""
WARM_UP = 20
BLANKED = 0.05
"""Share of the input bytes that is blanked out in every second micro-batch or so."""

Batch = tuple[Tensor, Tensor, Tensor]


def parser(description: str) -> argparse.ArgumentParser:
    """The options that both programs take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--steps", type=int, default=200, help="optimizer steps in the whole training")
    options.add_argument("--batch-size", type=int, default=4, help="samples per rank and micro-batch")
    options.add_argument("--text-bytes", type=int, default=256 * 1024, help="how much text to train on")
    options.add_argument("--seed", type=int, default=SEED, help="of weights, dropout, blanking and sample order")
    options.add_argument("--out", type=Path, required=True, help="folder for traces and the final state")
    return options


def dataset(text_bytes: int) -> ByteWindows:
    """The training data."""
    return ByteWindows(standard_library_text(text_bytes))


def build(steps: int, seed: int) -> tuple[ByteGPT, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Model (the same on all ranks), AdamW, and a schedule of linear warm-up and cosine decay.

    Leaves python's, numpy's and torch's generators in a state of this rank's own: dropout and blanking
    differ between ranks.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    model = ByteGPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)

    def factor(step: int) -> float:
        if step < WARM_UP:
            return (step + 1) / WARM_UP
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))

    own = seed + 1 + MPI.COMM_WORLD.rank
    torch.manual_seed(own)
    np.random.seed(own)
    random.seed(own)
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train_step(
    model: ByteGPT,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    batches: Iterator[Batch],
) -> tuple[float, float, list[int]]:
    """One optimizer step. Returns the loss over all ranks, over this rank, and the samples this rank saw."""
    model.train()
    optimizer.zero_grad()
    total, samples = 0.0, []
    for _ in range(ACCUMULATE):
        tokens, targets, index = next(batches)
        loss = model(_blank_out(tokens), targets) / ACCUMULATE
        loss.backward()
        total += loss.item()
        samples += index.tolist()
    mean = average_gradients(model, total)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return mean, total, samples


def _blank_out(tokens: Tensor) -> Tensor:
    """Blank random bytes of random batches, so that python's and numpy's generators matter to the loss."""
    if random.random() < 0.5:
        return tokens
    return tokens.masked_fill(torch.from_numpy(np.random.random(tuple(tokens.shape)) < BLANKED), 0)


def average_gradients(model: nn.Module, loss: float) -> float:
    """Replace every gradient by its mean over the ranks; return the mean of `loss`.

    One flat Allreduce, and not DistributedDataParallel: DDP rebuilds its buckets after its first iteration,
    so a restarted job would add numbers up in another order than one that was never interrupted, and
    floating-point sums depend on their order. Here the order is a matter of the rank and the place in the
    buffer only.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), torch.tensor([loss])])
    MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, flat.numpy(), op=MPI.SUM)
    flat /= MPI.COMM_WORLD.size
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return float(flat[-1])


class Trace:
    """A line for each step really done by this process, one file per rank and start. Format: README.md."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rank, restart = MPI.COMM_WORLD.rank, int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        path = folder / f"trace-{rank:04d}-{restart:04d}-{os.getpid()}.jsonl"
        # Unbuffered: a process that dies of kill -9 leaves the lines of all steps it finished.
        self._file = path.open("xb", buffering=0)
        self._write(rank=rank, world_size=MPI.COMM_WORLD.size, restart=restart, pid=os.getpid(), t=time.time())

    def _write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields).encode() + b"\n")

    def step(self, step: int, outcome: tuple[float, float, list[int]]) -> None:
        """Record what `train_step` returned for `step`; losses as hexadecimal floats, which are exact."""
        loss, local, samples = outcome
        self._write(step=step, loss=loss.hex(), local=local.hex(), samples=samples, t=time.time())


def save_final(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Write final-RANK.npz: weights, optimizer, schedule and generators, as arrays, without pickle."""
    arrays = {f"model/{name}": tensor.numpy() for name, tensor in model.state_dict().items()}
    state = optimizer.state_dict()
    for index, values in state["state"].items():
        arrays |= {f"optimizer/{index}/{name}": tensor.numpy() for name, tensor in values.items()}
    kind, keys, *rest = np.random.get_state()
    arrays |= {
        "optimizer/groups": _text(state["param_groups"]),
        "scheduler": _text({k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"}),
        "rng/torch": torch.get_rng_state().numpy(),
        "rng/numpy": np.asarray(keys),
        "rng/numpy-rest": _text([kind, *rest]),
        "rng/python": _text(random.getstate()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"final-{MPI.COMM_WORLD.rank:04d}.npz", **arrays)


def _text(value: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """JSON as an array of bytes; python writes floats so that they read back exactly."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
