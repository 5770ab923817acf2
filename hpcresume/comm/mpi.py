"""The MPI backend. The one module that imports mpi4py; importing it initialises MPI.

Every call is buffer-based on a duplicated communicator, so that no pickle travels and no message can meet
one of the user's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcresume import console
from hpcresume.comm.messages import check_root, check_total, split
from hpcresume.comm.nodes import node_name, number_nodes
from hpcresume.comm.ranks import Int64Vector
from hpcresume.errors import PeerFailureError, RanksError

__all__ = ["MpiRanks"]


class MpiRanks:
    """The processes of an MPI communicator; fulfils the protocol `Ranks`.

    Collective: duplicates `comm` (by default COMM_WORLD) and learns the nodes.

    Raises:
        RanksError: `comm` is null or joins two groups.
    """

    def __init__(self, comm: Any = None) -> None:
        comm = MPI.COMM_WORLD if comm is None else comm
        if comm == MPI.COMM_NULL or comm.Is_inter():
            what = "the communicator is null or an intercommunicator"
            raise RanksError(what, where="comm", hint="pass an intracommunicator")
        with _typed("Dup"):
            self._comm = comm.Dup()
        # Kept here, since a closed communicator can no longer be asked.
        self._rank, self._size = int(self._comm.Get_rank()), int(self._comm.Get_size())
        self._nodes = number_nodes(self.allgather(node_name(os.environ).encode()))

    @property
    def backend(self) -> str:
        """Always "mpi"."""
        return "mpi"

    @property
    def rank(self) -> int:
        """Index of this process in the communicator."""
        return self._rank

    @property
    def size(self) -> int:
        """How many processes the communicator has."""
        return self._size

    @property
    def nodes(self) -> tuple[int, ...]:
        """Node index of each rank; see `comm.nodes`."""
        return self._nodes

    def barrier(self) -> None:
        """See `Ranks.barrier`."""
        with _typed("Barrier"):
            self._comm.Barrier()

    def broadcast(self, data: bytes, root: int = 0) -> bytes:
        """See `Ranks.broadcast`.

        Raises:
            RanksError: no such root, or more than 2 GiB.
        """
        check_root(root, self._size)
        with _typed("Bcast"):
            length = np.array([len(data)], dtype=np.int64)
            self._comm.Bcast(length, root)
            check_total("broadcast", int(length[0]))
            if self._rank == root:
                buffer = np.frombuffer(data, dtype=np.uint8)
            else:
                buffer = np.empty(int(length[0]), dtype=np.uint8)
            if len(buffer):
                self._comm.Bcast([buffer, MPI.BYTE], root)
        return buffer.tobytes()

    def allgather(self, data: bytes) -> list[bytes]:
        """See `Ranks.allgather`. Empty data everywhere costs one call of 8 bytes a rank.

        Raises:
            RanksError: more than 2 GiB from all ranks together.
        """
        lengths = np.empty(self._size, dtype=np.int64)
        with _typed("Allgather"):
            self._comm.Allgather(np.array([len(data)], dtype=np.int64), lengths)
            total = int(lengths.sum())
            check_total("allgather", total)
            if total == 0:
                return [b""] * self._size
            joined = np.empty(total, dtype=np.uint8)
            counts = (lengths, np.cumsum(lengths) - lengths)
            self._comm.Allgatherv([np.frombuffer(data, dtype=np.uint8), MPI.BYTE], [joined, counts, MPI.BYTE])
        return split(joined, [int(length) for length in lengths])

    def allreduce_max(self, values: Int64Vector) -> Int64Vector:
        """See `Ranks.allreduce_max`."""
        mine = np.ascontiguousarray(values, dtype=np.int64)
        result = np.empty_like(mine)
        with _typed("Allreduce"):
            self._comm.Allreduce(mine, result, MPI.MAX)
        return result

    def abort(self, code: int) -> None:
        """MPI_Abort on COMM_WORLD: ends every process of the job, those outside the communicator too."""
        console.flush()
        MPI.COMM_WORLD.Abort(code)

    def mpi(self) -> Any:
        """The duplicated communicator."""
        return self._comm

    def close(self) -> None:
        """Collective. Free the duplicate; a second call, or one after MPI_Finalize, does nothing."""
        if self._comm != MPI.COMM_NULL and not MPI.Is_finalized():
            self._comm.Free()


@contextlib.contextmanager
def _typed(call: str) -> Iterator[None]:
    """Turn what MPI reports into our tree: a failing collective means that some process is gone."""
    try:
        yield
    except MPI.Exception as error:
        raise PeerFailureError(f"MPI {call} failed: {error}", hint="see what the launcher printed") from error
