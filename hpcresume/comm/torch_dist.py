"""The torch.distributed backend, on a gloo group of its own. The one module of `comm` that imports torch."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from hpcresume import console
from hpcresume.comm.messages import check_root, check_total
from hpcresume.comm.nodes import node_name, number_nodes
from hpcresume.comm.ranks import Int64Vector
from hpcresume.errors import PeerFailureError, RanksError, RanksMissingError

__all__ = ["TorchRanks"]

_TIMEOUT = timedelta(days=1)
"""After this long gloo gives up by itself. Torch's default, 30 min, might be up before the watchdog's time (a save of
terabytes is given hours), and gloo cannot say which rank is missing."""


class TorchRanks:
    """All processes of torch.distributed; fulfils the protocol `Ranks`.

    Collective. If the user has initialised torch.distributed (on any backend), a gloo group beside it is
    used; otherwise the default group is initialised from the variables that torchrun sets
    (https://docs.pytorch.org/docs/stable/elastic/run.html), and destroyed in `close`.

    Args:
        timeout: how long one collective may take before gloo itself gives up.

    Raises:
        RanksError: torch was built without distributed, or the group cannot be made.
    """

    def __init__(self, *, timeout: timedelta = _TIMEOUT) -> None:
        if not dist.is_available():
            raise RanksError("torch was built without torch.distributed", hint="comm='mpi', or another torch")
        self._own = not dist.is_initialized()
        with _typed("the start of torch.distributed"):
            if self._own:
                dist.init_process_group("gloo")
            self._made: Any = dist.new_group(backend="gloo", timeout=timeout)
        self._rank, self._size = dist.get_rank(), dist.get_world_size()
        self._open_in = os.getpid()
        # A process that ends while gloo's threads run may die of SIGABRT instead of with its exit code ("terminate
        # called without an active exception"; seen in 7 of 30 after a failure, and rarely after a good end): a thread
        # that frees the tensors of the last call needs the interpreter, which by then ends every thread that asks.
        atexit.register(self.close)
        self._nodes = number_nodes(self.allgather(node_name(os.environ).encode()))

    @property
    def backend(self) -> str:
        """Always "torch"."""
        return "torch"

    @property
    def rank(self) -> int:
        """Index of this process in torch.distributed's default group."""
        return self._rank

    @property
    def size(self) -> int:
        """World size of torch.distributed's default group."""
        return self._size

    @property
    def nodes(self) -> tuple[int, ...]:
        """Node index of each rank; see `comm.nodes`."""
        return self._nodes

    def barrier(self) -> None:
        """See `Ranks.barrier`."""
        self._gather_lengths(0)  # dist.barrier would touch a GPU where the default group is on NCCL

    def broadcast(self, data: bytes, root: int = 0) -> bytes:
        """See `Ranks.broadcast`.

        Raises:
            RanksError: no such root, or more than 2 GiB.
        """
        check_root(root, self._size)
        length = torch.tensor([len(data)], dtype=torch.int64)
        with _typed("broadcast"):
            dist.broadcast(length, root, group=self._group())
            check_total("broadcast", int(length))
            buffer = _tensor(data) if self._rank == root else torch.empty(int(length), dtype=torch.uint8)
            if buffer.numel():
                dist.broadcast(buffer, root, group=self._group())
        return buffer.numpy().tobytes()

    def allgather(self, data: bytes) -> list[bytes]:
        """See `Ranks.allgather`. Gloo wants equal lengths: shorter data is padded to the longest.

        Raises:
            RanksError: ranks times the longest is more than 2 GiB.
        """
        lengths = self._gather_lengths(len(data))
        longest = max(lengths)
        check_total("allgather", longest * self._size)
        if longest == 0:
            return [b""] * self._size
        mine = _tensor(data.ljust(longest, b"\0"))
        everybody = [torch.empty_like(mine) for _ in range(self._size)]
        with _typed("all_gather"):
            dist.all_gather(everybody, mine, group=self._group())
        return [each[:n].numpy().tobytes() for each, n in zip(everybody, lengths, strict=True)]

    def allreduce_max(self, values: Int64Vector) -> Int64Vector:
        """See `Ranks.allreduce_max`."""
        result = torch.from_numpy(np.array(values, dtype=np.int64))
        if result.numel():
            with _typed("all_reduce"):
                dist.all_reduce(result, dist.ReduceOp.MAX, group=self._group())
        return np.asarray(result.numpy(), dtype=np.int64)

    def abort(self, code: int) -> NoReturn:
        """End this process with `code`; torchrun then stops the peers, and gloo fails in those that wait."""
        console.tell(f"hpcresume: rank {self._rank} aborts the job with code {code}")
        console.flush()
        os._exit(code)

    def mpi(self) -> None:
        """None: there is no MPI here."""

    def close(self) -> None:
        """Collective. Destroy our group, and the default group if we made it; a second call does nothing.

        Happens by itself when the process ends, and never in a forked child, which has no threads to end. Torch only
        forgets a group that is destroyed: its threads end with the last reference to it, so ours goes too.
        """
        atexit.unregister(self.close)
        if self._open_in != os.getpid():
            return
        self._open_in = -1
        if dist.is_initialized():
            with contextlib.suppress(ValueError):  # the user destroyed all groups, and made others since
                dist.destroy_process_group(None if self._own else self._made)
        self._made = None

    def _group(self) -> Any:
        """Our group. (None would mean the user's default group to torch.)"""
        if self._made is None:
            raise RanksError("these ranks are closed", where="gloo", hint="do it inside the session's block")
        return self._made

    def _gather_lengths(self, length: int) -> list[int]:
        mine = torch.tensor([length], dtype=torch.int64)
        everybody = [torch.empty_like(mine) for _ in range(self._size)]
        with _typed("all_gather"):
            dist.all_gather(everybody, mine, group=self._group())
        return [int(each) for each in everybody]


def _tensor(data: bytes) -> torch.Tensor:
    """A flat uint8 tensor with a copy of `data`, since torch has no read-only tensors."""
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


@contextlib.contextmanager
def _typed(call: str) -> Iterator[None]:
    """Turn gloo's RuntimeError into our tree: a peer closed its connection, or did not come in time."""
    try:
        yield
    except RuntimeError as error:
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        kind = RanksMissingError if late else PeerFailureError
        raise kind(f"{call} failed: {str(error).splitlines()[0]}", where="gloo") from error
    except ValueError as error:
        hint = "start the job by torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        raise RanksError(f"{call} failed: {error}", hint=hint) from error
