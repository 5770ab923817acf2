"""A torch training at several ranks: torch_driver.py KIND OUT [RUN STEP@RANK]; without RUN a plain loop.

KIND is sgd or adamw. Appends to OUT/rank-N.jsonl a line for each step, and the final bytes. With STEP@RANK, that
rank gets a real USR1 in that step.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI

kind, out = sys.argv[1], Path(sys.argv[2])
comm = MPI.COMM_WORLD
STEPS, BATCH, SEED = 30, 3, 4
torch.manual_seed(0)
data = torch.randn(40, 6)
model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
if kind == "sgd":
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
else:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
torch.manual_seed(1000 + comm.rank)
np.random.seed(2000 + comm.rank)


def record(**fields: object) -> None:
    """A line that survives a kill."""
    with (out / f"rank-{comm.rank}.jsonl").open("a") as file:
        file.write(json.dumps(fields) + "\n")


def train_step(step: int, batch: list[int]) -> None:
    """One data-parallel step; every rank draws its own dropout and noise."""
    rows = data[batch]
    optimizer.zero_grad()
    noise = torch.from_numpy(np.random.random((len(batch), 5))).float()
    loss = (model(rows[:, :5] + 0.1 * noise) - rows[:, 5:]).pow(2).mean()
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        comm.Allreduce(MPI.IN_PLACE, parameter.grad.numpy())
    optimizer.step()
    record(step=step, samples=batch, loss=loss.item().hex())


def finish() -> None:
    """Digest of everything that training leaves."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    for state in optimizer.state_dict()["state"].values():
        for value in state.values():
            digest.update(torch.as_tensor(value).numpy().tobytes())
    digest.update(torch.get_rng_state().numpy().tobytes() + np.random.get_state()[1].tobytes())
    record(final=digest.hexdigest())


def plain() -> None:
    """Never imports hpcresume."""
    order: list[int] = []
    for epoch in range(STEPS * BATCH * comm.size // len(data) + 1):
        order += np.argsort(np.random.Philox(key=[SEED, epoch]).random_raw(len(data)), kind="stable").tolist()
    for step in range(STEPS):
        start = (step * comm.size + comm.rank) * BATCH
        train_step(step, order[start : start + BATCH])
    finish()


def resumable(run: str, shot: str) -> None:
    """The same in a session."""
    import hpcresume as hr

    at, _, rank = shot.partition("@")
    with hr.session(run, every="1000 steps", reaction=0) as s:
        s.track(model=model, optimizer=optimizer)
        batches = s.batches(range(len(data)), BATCH, seed=SEED, collate_fn=list)
        for step in s.steps(STEPS):
            train_step(step, next(batches))
            if at == str(step) and rank == str(comm.rank):
                os.kill(os.getpid(), signal.SIGUSR1)
                while not s.poll():
                    time.sleep(0.001)
    finish()


torch.set_num_threads(1)
if len(sys.argv) > 3:
    resumable(sys.argv[3], sys.argv[4])
else:
    plain()
