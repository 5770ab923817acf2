"""The protocol that every backend of ranks fulfils. Bytes and int64 vectors only: no pickle travels."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Int64Vector", "Ranks"]

Int64Vector = npt.NDArray[np.int64]


@runtime_checkable
class Ranks(Protocol):
    """A fixed group of processes that call every collective method in the same order.

    Attributes:
        backend: "mpi", "torch" or "single".
        rank: this process, from 0.
        size: how many there are (the world size).
        nodes: node index of each rank, in rank order; equal numbers share a machine.
    """

    @property
    def backend(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nodes(self) -> tuple[int, ...]: ...

    def barrier(self) -> None:
        """Collective. Return when every rank has called it."""

    def broadcast(self, data: bytes, root: int = 0) -> bytes:
        """Collective. Return `root`'s data on every rank (others' data is ignored)."""

    def allgather(self, data: bytes) -> list[bytes]:
        """Collective. Return every rank's data in rank order; lengths may differ, zero included."""

    def allreduce_max(self, values: Int64Vector) -> Int64Vector:
        """Collective. Elementwise maximum over ranks of a short vector of equal length everywhere."""

    def abort(self, code: int) -> None:
        """Not collective. End every rank of the job as far as the backend can, at once, with `code`."""

    def mpi(self) -> Any:
        """The mpi4py communicator for MPI-IO, or None when the backend is not MPI."""

    def close(self) -> None:
        """Collective. Release what the backend holds; the user's own communicators stay as they are."""
