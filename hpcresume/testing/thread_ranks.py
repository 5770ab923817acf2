"""Ranks as threads of one process: multi-rank logic under test with neither MPI nor processes.

Stricter than the real backends: a collective that does not match its peers' is an error at once, and so is
one that a peer can no longer reach because it has left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from hpcresume.comm.ranks import Int64Vector
from hpcresume.errors import PeerFailureError, RanksError, RanksMissingError

__all__ = ["RanksAborted", "ThreadRanks", "ThreadWorld", "run_ranks", "unwrap"]

T = TypeVar("T")

_GRACE_SECONDS = 5.0
"""How long `run_ranks` waits for threads to end once it has broken their world."""


class RanksAborted(SystemExit):
    """`abort` was called: ends the thread of every rank, as MPI_Abort would end its process."""


class _Round:
    """One collective: what each rank brought, and the name of the call it brought it to."""

    def __init__(self) -> None:
        self.brought: dict[int, tuple[str, Any]] = {}
        self.full = False


class ThreadWorld:
    """What the ranks share. `nodes` gives the node of each rank; by default all are on one.

    `timeout` (seconds) bounds every collective: a rank that waits longer gets `RanksMissingError`.
    """

    def __init__(self, size: int, *, nodes: Sequence[int] | None = None, timeout: float = 60.0) -> None:
        self.size = size
        self.nodes = tuple(nodes) if nodes is not None else (0,) * size
        if len(self.nodes) != size:
            raise RanksError(f"{len(self.nodes)} nodes given for {size} ranks")
        self.timeout = timeout
        self._changed = threading.Condition()
        self._round = _Round()
        self._left: dict[int, BaseException | None] = {}
        self._abort_code: int | None = None

    def exchange(self, rank: int, call: str, data: Any) -> list[Any]:
        """Bring `data` to the current collective; return everybody's, in rank order.

        Raises:
            PeerFailureError: a peer's thread has ended with an exception.
            RanksMissingError: a peer's thread has ended, or the timeout passed.
            RanksError: the peers are in another collective.
            RanksAborted: some rank called `abort`.
        """
        with self._changed:
            current = self._round
            current.brought[rank] = (call, data)
            if len(current.brought) == self.size:
                current.full = True
                self._round = _Round()
                self._changed.notify_all()
            else:
                self._wait_or_withdraw(current, rank, call)
        return _matched(current, call)

    def leave(self, rank: int, error: BaseException | None) -> None:
        """Say that `rank` will reach no further collective."""
        with self._changed:
            self._left[rank] = error
            self._changed.notify_all()

    def abort(self, code: int) -> NoReturn:
        """End every rank with `code`."""
        with self._changed:
            self._abort_code = code
            self._changed.notify_all()
        raise RanksAborted(code)

    def _wait_or_withdraw(self, current: _Round, rank: int, call: str) -> None:
        try:
            self._wait(current, rank, call)
        finally:
            if not current.full:
                del current.brought[rank]  # else a late peer would complete a collective that failed here

    def _wait(self, current: _Round, rank: int, call: str) -> None:
        end = time.monotonic() + self.timeout
        while not current.full:
            if self._abort_code is not None:
                raise RanksAborted(self._abort_code)
            self._check_left(current, rank, call)
            if not self._changed.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                raise self._missing(current, call, f"after {self.timeout:g} s")

    def _check_left(self, current: _Round, rank: int, call: str) -> None:
        gone = [r for r in self._left if r not in current.brought]
        for each in gone:
            error = self._left[each]
            if error is not None:
                what = f"rank {each} left with {type(error).__name__}: {error}"
                raise PeerFailureError(what, where=f"rank {rank} waits in {call}") from error
        if gone:
            raise self._missing(current, call, "and some have returned")

    def _missing(self, current: _Round, call: str, when: str) -> RanksMissingError:
        missing = ", ".join(str(r) for r in range(self.size) if r not in current.brought)
        return RanksMissingError(f"ranks {missing} have not reached {call} {when}")


def _matched(current: _Round, call: str) -> list[Any]:
    calls = {name for name, _ in current.brought.values()}
    if calls != {call}:
        listed = ", ".join(f"rank {r}: {current.brought[r][0]}" for r in sorted(current.brought))
        raise RanksError("ranks are in different collectives", where=listed)
    return [current.brought[r][1] for r in range(len(current.brought))]


class ThreadRanks:
    """One rank of a `ThreadWorld`; fulfils the protocol `Ranks`."""

    def __init__(self, world: ThreadWorld, rank: int) -> None:
        self.world = world
        self._rank = rank

    @property
    def backend(self) -> str:
        """Always "threads"."""
        return "threads"

    @property
    def rank(self) -> int:
        """Which of the threads it is, from 0."""
        return self._rank

    @property
    def size(self) -> int:
        """How many threads there are."""
        return self.world.size

    @property
    def nodes(self) -> tuple[int, ...]:
        """Node index of each rank, as the test said."""
        return self.world.nodes

    def barrier(self) -> None:
        """See `Ranks.barrier`."""
        self.world.exchange(self._rank, "barrier", None)

    def broadcast(self, data: bytes, root: int = 0) -> bytes:
        """See `Ranks.broadcast`."""
        if not 0 <= root < self.size:
            raise RanksError(f"there is no rank {root} to broadcast from", where=f"{self.size} ranks")
        sent = bytes(data) if self._rank == root else b""
        everybody = self.world.exchange(self._rank, f"broadcast from {root}", sent)
        return bytes(everybody[root])

    def allgather(self, data: bytes) -> list[bytes]:
        """See `Ranks.allgather`."""
        return self.world.exchange(self._rank, "allgather", bytes(data))

    def allreduce_max(self, values: Int64Vector) -> Int64Vector:
        """See `Ranks.allreduce_max`."""
        everybody = self.world.exchange(self._rank, f"allreduce_max of {values.shape}", values.copy())
        result: Int64Vector = np.maximum.reduce(everybody)
        return result

    def abort(self, code: int) -> NoReturn:
        """End every rank's thread at its next or current collective, this one now."""
        self.world.abort(code)

    def mpi(self) -> None:
        """None: there is no MPI here."""

    def close(self) -> None:
        """See `Ranks.close`."""
        self.world.exchange(self._rank, "close", None)


def run_ranks(
    size: int,
    fn: Callable[[ThreadRanks], T],
    *,
    nodes: Sequence[int] | None = None,
    timeout: float = 60.0,
) -> list[T | BaseException]:
    """Run `fn(ranks)` on `size` ranks at once; return what each returned or raised, in rank order.

    `fn` should return no exception object: it would look like one that was raised. A rank that is still
    running after `timeout` seconds gives a `RanksMissingError`; its thread is a daemon and is left behind.
    """
    world = ThreadWorld(size, nodes=nodes, timeout=timeout)
    results: list[T | BaseException] = [RanksMissingError(f"rank {r} still runs") for r in range(size)]

    def body(rank: int) -> None:
        try:
            results[rank] = fn(ThreadRanks(world, rank))
        except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
            results[rank] = error
            world.leave(rank, error)
        else:
            world.leave(rank, None)

    threads = [threading.Thread(target=body, args=(r,), name=f"rank {r}", daemon=True) for r in range(size)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout + _GRACE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return list(results)


def unwrap(results: Iterable[T | BaseException]) -> list[T]:
    """The results, if no rank raised; otherwise raise what the first failing rank raised."""
    good: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        good.append(result)
    return good
