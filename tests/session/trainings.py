"""A small torch training whose every bit is recorded, as a plain loop and as a session."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import hpcresume as hr

STEPS = 30
BATCH = 4


class Noisy:
    """A data set whose items are augmented with all three generators; an item carries its own index."""

    def __init__(self, n: int = 50) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> torch.Tensor:
        assert 0 <= index < self.n
        noise = random.random() + float(np.random.random()) + float(torch.rand(()))
        return torch.cat([torch.tensor([float(index), noise]), torch.linspace(0, 1, 4) * noise])


@dataclass
class Record:
    """Everything that has to be the same bits."""

    losses: dict[int, str] = field(default_factory=dict)
    samples: dict[int, list[int]] = field(default_factory=dict)
    final: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Parts:
    """What is trained."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any


def build(kind: str) -> Parts:
    """The same parts and the same generators each time."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    optimizer: torch.optim.Optimizer
    if kind == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return Parts(model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS))


def train_step(parts: Parts, batch: torch.Tensor) -> torch.Tensor:
    """One step that draws from all three generators."""
    parts.optimizer.zero_grad()
    scale = random.random() + float(np.random.random())
    loss = (parts.model(batch[:, 2:]) - scale * batch[:, 1:2]).pow(2).mean()
    loss.backward()
    parts.optimizer.step()
    parts.scheduler.step()
    return loss.detach()


def final_bytes(parts: Parts) -> dict[str, bytes]:
    """Every byte that training leaves, generators included."""
    found = {f"model/{k}": v.numpy().tobytes() for k, v in parts.model.state_dict().items()}
    for index, state in parts.optimizer.state_dict()["state"].items():
        found |= {f"optimizer/{index}/{k}": torch.as_tensor(v).numpy().tobytes() for k, v in state.items()}
    kind, words, *rest = np.random.get_state()
    found["scheduler"] = repr(parts.scheduler.state_dict()).encode()
    found["rng/python"] = repr(random.getstate()).encode()
    found["rng/numpy"] = np.asarray(words).tobytes() + repr((kind, rest)).encode()
    found["rng/torch"] = torch.get_rng_state().numpy().tobytes()
    return found


def hexadecimal(loss: torch.Tensor) -> str:
    """All bits of a float."""
    return struct.pack(">f", loss.item()).hex()


def plain(kind: str) -> Record:
    """The training as a loop that knows nothing of hpcresume, its order of samples from the documented formula."""
    record, parts, data = Record(), build(kind), Noisy()
    order: list[int] = []
    for epoch in range(STEPS * BATCH // len(data) + 1):
        keys = np.random.Philox(key=[7, epoch]).random_raw(len(data))
        order += np.argsort(keys, kind="stable").tolist()
    for step in range(STEPS):
        numbers = range(step * BATCH, (step + 1) * BATCH)
        batch = torch.stack([_augmented(data, k, order[k]) for k in numbers])
        record.samples[step] = batch[:, 0].int().tolist()
        record.losses[step] = hexadecimal(train_step(parts, batch))
    record.final = final_bytes(parts)
    return record


def _augmented(data: Noisy, k: int, index: int) -> torch.Tensor:
    """What the docstring of `batches` says about augmentation, written out once more."""
    import hashlib

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int.from_bytes(hashlib.blake2b(f"7:{k}".encode(), digest_size=8).digest(), "little")
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)
    item = data[index]
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])
    return item


def resumable(
    run: Any, kind: str, record: Record, *, during: Callable[[Any, int], None] = lambda s, step: None, **options: Any
) -> None:
    """The same training inside a session; `during` is called in the middle of each step."""
    parts = build(kind)
    workers = options.pop("num_workers", 0)
    with hr.session(run, **{"every": "1000 steps", "reaction": 0, "read_back": "all", **options}) as s:
        s.track(model=parts.model, optimizer=parts.optimizer, scheduler=parts.scheduler)
        batches = s.batches(Noisy(), BATCH, seed=7, num_workers=workers)
        for step in s.steps(STEPS):
            batch = next(batches)
            during(s, step)
            record.samples[step] = batch[:, 0].int().tolist()
            record.losses[step] = hexadecimal(train_step(parts, batch))
            s.log(loss=float.fromhex("0x1p0"))
    record.final = final_bytes(parts)
