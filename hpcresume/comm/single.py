"""The backend of one process. Knows no library of ranks."""

from __future__ import annotations

import os
from typing import NoReturn

import numpy as np

from hpcresume import console
from hpcresume.comm.ranks import Int64Vector
from hpcresume.errors import RanksError

__all__ = ["SingleRanks"]


class SingleRanks:
    """One rank, size 1: every collective returns at once what it was given."""

    @property
    def backend(self) -> str:
        """Always "single"."""
        return "single"

    @property
    def rank(self) -> int:
        """Always 0."""
        return 0

    @property
    def size(self) -> int:
        """Always 1."""
        return 1

    @property
    def nodes(self) -> tuple[int, ...]:
        """Always (0,)."""
        return (0,)

    def barrier(self) -> None:
        """Return at once."""

    def broadcast(self, data: bytes, root: int = 0) -> bytes:
        """Return `data`.

        Raises:
            RanksError: `root` is not 0.
        """
        if root != 0:
            raise RanksError(f"there is no rank {root} to broadcast from", where="1 rank")
        return bytes(data)

    def allgather(self, data: bytes) -> list[bytes]:
        """Return `[data]`."""
        return [bytes(data)]

    def allreduce_max(self, values: Int64Vector) -> Int64Vector:
        """Return a copy of `values`."""
        return np.array(values, dtype=np.int64)

    def abort(self, code: int) -> NoReturn:
        """End this process at once with `code`; no finalizer runs."""
        console.flush()
        os._exit(code)

    def mpi(self) -> None:
        """None: there is no MPI here."""

    def close(self) -> None:
        """Nothing is held."""
