"""Frozen values that travel between the layers. Owns no behaviour and knows no file, rank or clock."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = [
    "EXIT_COME_BACK",
    "EXIT_DONE",
    "EXIT_HOLD",
    "FORMAT_VERSION",
    "Cause",
    "Decision",
    "Emit",
    "Event",
    "EveryRank",
    "Generation",
    "GlobalSlice",
    "Loaded",
    "RankLocal",
    "Skipped",
    "TensorInfo",
    "VerifyReport",
    "Warned",
    "ignore_events",
]

FORMAT_VERSION: Final = 1
"""Version of everything under a run directory; see docs/FORMAT.md."""

EXIT_DONE: Final = 0
"""The run is finished."""
EXIT_COME_BACK: Final = 75
"""Stopped on purpose after a commit: put the job back in the queue (EX_TEMPFAIL of sysexits.h)."""
EXIT_HOLD: Final = 77
"""Reserved: do not requeue, an operator has to look first."""


class Cause(str, enum.Enum):
    """Why an attempt ended."""

    DONE = "done"
    PREEMPTED = "preempted"
    WALLTIME = "walltime"
    NODE_FAILURE = "node-failure"
    OUT_OF_MEMORY = "out-of-memory"
    CRASH = "crash"
    OPERATOR = "operator"
    STORAGE = "storage"
    UNKNOWN = "unknown"


class Decision(str, enum.Enum):
    """What happens to the job after an attempt."""

    DONE = "done"
    COME_BACK = "come-back"
    HOLD = "hold"


@dataclass(frozen=True)
class Event:
    """One thing that happened; `fields` holds JSON values only."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Emit = Callable[[Event], None]
"""Lower layers report through this and never import the ledger."""


def ignore_events(event: Event) -> None:
    """Drop an event: the `Emit` of callers that keep no ledger."""


@dataclass(frozen=True)
class Warned:
    """A signal that says time is short, and when it came (seconds of `time.monotonic`)."""

    signal: int
    at: float


@dataclass(frozen=True)
class TensorInfo:
    """One dataset of a generation.

    `shape` is the global shape; for per-rank tensors its first axis is the rank. `dtype` is torch's or
    numpy's name. `offset` and `nbytes` locate the bytes in `file`; `scope` is replicated, per-rank,
    one-rank or sliced.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scope: str
    file: str
    offset: int
    nbytes: int
    digest: str


@dataclass(frozen=True)
class Generation:
    """One committed checkpoint, immutable. `path` is its directory; `tensors` maps HDF5 names to facts."""

    run: Path
    step: int
    attempt: int
    path: Path
    world_size: int
    tensors: Mapping[str, TensorInfo]
    parent: str | None = None
    created: str = ""
    root: str = ""
    nbytes: int = 0
    write_path: str = ""
    read_back: str = "all"

    @property
    def name(self) -> str:
        """The directory's name, for instance `g000000000120-a0002`."""
        return self.path.name


class Loaded(NamedTuple):
    """What `load` returns: always the generation that was used and the state."""

    generation: Generation
    state: Any


@dataclass(frozen=True)
class Skipped:
    """A generation that a restore or verification found bad, and why. `offset` is in bytes, -1 if unknown."""

    generation: str
    reason: str
    tensor: str = ""
    offset: int = -1


@dataclass(frozen=True)
class VerifyReport:
    """Outcome of reading every byte of a generation and comparing it with its digests."""

    generation: str
    units: int
    nbytes: int
    damage: tuple[Skipped, ...] = ()

    @property
    def ok(self) -> bool:
        """True when every unit matched."""
        return not self.damage


@dataclass(frozen=True)
class RankLocal:
    """Marks a subtree of the state as belonging to this rank only (an RNG, a buffer that differs by rank)."""

    value: Any


@dataclass(frozen=True)
class EveryRank:
    """Rank-local values of all ranks, in rank order: what `load` gives where the world size differs."""

    values: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rank: int) -> Any:
        return self.values[rank]


@dataclass(frozen=True)
class GlobalSlice:
    """This rank's block of a global array.

    `array` (numpy array or torch tensor) holds the elements whose global indices along axis i run from
    `start[i]` to `start[i] + array.shape[i]`; `shape` is the global shape. The blocks of all ranks tile
    the global array exactly.
    """

    array: Any
    shape: tuple[int, ...]
    start: tuple[int, ...]
