"""The training that all contenders run: two ranks, DDP, dropout, shuffled data, momentum; and its witness.

Every contender calls the same functions, so that they differ in nothing but how they are warned, saved and brought
back. What a case makes slow it makes slow here, for all alike, by files that the driver puts into the folder PEERS_OUT:
`slow-save` holds the seconds that collecting the state takes from then on, `long-evaluation` the number of batches.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

STEPS = 120
EVERY = 20
"""Steps between two saves that nobody asked for."""
EVALUATE_EVERY = 30
BATCH = 4
EPOCH = 24
"""Steps of an epoch, on two ranks."""
SAMPLES = EPOCH * BATCH * 2
MAGIC = 1.0838862
"""The value of 64 frozen weights, by which the driver finds bytes of the model in a checkpoint, to damage one."""

OUT = Path(os.environ.get("PEERS_OUT", "."))
PAUSE = float(os.environ.get("PEERS_PAUSE", "0.2"))
BALLAST = int(os.environ.get("PEERS_BALLAST_MIB", "0"))

torch.set_num_threads(1)


class Net(torch.nn.Module):
    """A few layers with dropout, and the frozen weights that a case damages."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(32, 1)
        )
        self.register_buffer("frozen", torch.full((64,), MAGIC))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * self.frozen.mean()


def make_net() -> Net:
    """The same weights for everybody, and the same random generators afterwards, on every rank."""
    torch.manual_seed(1)
    return Net()


def make_optimizer(net: torch.nn.Module) -> torch.optim.Optimizer:
    """With a state of its own, so that losing it shows."""
    return torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)


def join_ranks() -> int:
    """Torch's process group out of srun's variables; MASTER_ADDR and MASTER_PORT come with the job."""
    rank = int(os.environ["SLURM_PROCID"])
    dist.init_process_group("gloo", rank=rank, world_size=int(os.environ["SLURM_NTASKS"]))
    return rank


class Samples:
    """A map-style data set whose items are their own numbers; `rows` makes inputs and targets of them."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < SAMPLES:
            raise IndexError(index)
        return index


def rows(ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of samples."""
    points = torch.stack([torch.sin(torch.arange(16) * (i + 1) * 0.37) for i in ids])
    return points, points[:, :4].sum(dim=1, keepdim=True)


class Batches:
    """A resumable loader of numbers of samples: an epoch per iteration, a new order in each.

    With `state_dict` and `load_state_dict`, as Lightning and torchdata ask of a loader that can be resumed.
    """

    def __init__(self, rank: int) -> None:
        self.rank, self.epoch, self.position = rank, 0, 0

    def __len__(self) -> int:
        return EPOCH

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(100 + self.epoch)).tolist()
        while self.position < EPOCH:
            first = (self.position * 2 + self.rank) * BATCH
            self.position += 1
            yield order[first : first + BATCH]
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def endless(batches: Batches) -> Iterator[list[int]]:
    """Epoch after epoch."""
    while True:
        yield from batches


def loss_of(net: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """The loss of a batch. A step takes PAUSE seconds, half of them before and half after this."""
    time.sleep(PAUSE / 2)
    points, targets = rows(ids)
    loss = (net(points) - targets).pow(2).mean()
    time.sleep(PAUSE / 2)
    return loss


def evaluate(net: torch.nn.Module, hurry: Callable[[], object] = lambda: False) -> float:
    """The mean loss without dropout over two batches, or as many as the driver says; each takes 0.2 s."""
    count = _number("long-evaluation") or 2
    note(event="evaluating")
    training = net.training
    net.eval()
    total = 0.0
    with torch.no_grad():
        for number in range(int(count)):
            if hurry():
                note(event="hurried")
                break
            points, targets = rows([number % SAMPLES])
            total += float((net(points) - targets).pow(2).mean())
            time.sleep(0.2)
    net.train(training)
    note(event="evaluated")
    return total


def collected() -> dict[str, torch.Tensor]:
    """What belongs into every checkpoint beside model and optimizer. Collecting it takes as long as the driver says."""
    note(event="saving")
    time.sleep(_number("slow-save") or 0)
    note(event="collected")
    return {"ballast": torch.full((BALLAST << 18,), 0.5)}


def random_state() -> dict[str, Any]:
    """The random generators of this process."""
    return {"torch": torch.get_rng_state(), "python": random.getstate()}


def restore_random_state(state: dict[str, Any]) -> None:
    """And back."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])


# ---- the witness


def note_beginning() -> None:
    """An attempt begins; `started` is when its process was started, before it imported anything."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if "btime" in line)
    note(event="began", started=booted + ticks / os.sysconf("SC_CLK_TCK"))


def note(**fields: object) -> None:
    """A line that survives a kill, in this rank's file."""
    with (OUT / f"rank-{os.environ.get('SLURM_PROCID', '0')}.jsonl").open("a") as lines:
        lines.write(json.dumps({"at": round(time.time(), 3), "pid": os.getpid(), **fields}) + "\n")


def note_step(step: int, ids: list[int], loss: torch.Tensor) -> None:
    """A step was computed."""
    note(step=step, ids=ids, loss=float(loss.detach()).hex())


def finish(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The end of the training: a digest of all that it has come to."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    for state in optimizer.state_dict()["state"].values():
        digest.update(state["momentum_buffer"].numpy().tobytes())
    digest.update(torch.get_rng_state().numpy().tobytes())
    frozen = bool((net.state_dict()["frozen"] == torch.tensor(MAGIC)).all())
    path = OUT / f"final-{os.environ.get('SLURM_PROCID', '0')}.json"
    path.with_suffix(".new").write_text(json.dumps({"digest": digest.hexdigest(), "frozen_intact": frozen}))
    path.with_suffix(".new").rename(path)
    note(event="finished")


def _number(name: str) -> float | None:
    """What the driver has put into a file."""
    with contextlib.suppress(OSError, ValueError):
        return float((OUT / name).read_text())
    return None
