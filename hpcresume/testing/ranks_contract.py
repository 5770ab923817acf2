"""What every backend of ranks promises, as checks that run on all ranks at once.

Each check is a function of one rank's `Ranks`, called on every rank together; it raises AssertionError on
the ranks that saw a promise broken. Subclass `RanksContract` for a backend of your own, or run the checks
in a launcher's processes by `run_checks`.
"""

from __future__ import annotations

import abc
import errno
import os
import time
import warnings
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from hpcresume.comm.ranks import Int64Vector, Ranks
from hpcresume.comm.vote import agree_bytes, vote
from hpcresume.errors import (
    DamagedError,
    HpcresumeError,
    NoSpaceError,
    PeerFailureError,
    RanksError,
    SaveError,
)

__all__ = ["CHECKS", "Check", "RanksContract", "run_checks"]

Check = Callable[[Ranks], None]

CHECKS: dict[str, Check] = {}
"""Every check by its name, in the order in which they stand here."""

_MIB = 1 << 20


def _check(function: Check) -> Check:
    CHECKS[function.__name__.lstrip("_")] = function
    return function


class RanksContract(abc.ABC):
    """One test a check. A subclass whose name pytest collects says how a check is run on all ranks.

    Attributes:
        left_out: names of checks that say nothing about this backend.
    """

    left_out: ClassVar[frozenset[str]] = frozenset()

    @abc.abstractmethod
    def run_check(self, name: str) -> None:
        """Run `CHECKS[name]` on every rank of a group; raise AssertionError if it failed on any."""

    def __init_subclass__(cls) -> None:
        """Give the subclass a test method for each check."""
        super().__init_subclass__()
        for name in CHECKS:
            if name not in cls.left_out:
                setattr(cls, f"test_{name}", _test_of(name))


def _test_of(name: str) -> Callable[[RanksContract], None]:
    def test(self: RanksContract) -> None:
        self.run_check(name)

    test.__name__ = f"test_{name}"
    test.__doc__ = CHECKS[name].__doc__
    return test


def run_checks(ranks: Ranks, report: Callable[[str, str], None]) -> None:
    """Run every check on this rank; `report` is given its name, and "" or what went wrong.

    Called on all ranks together. Ends early when a check left the ranks out of step.
    """
    for name, function in CHECKS.items():
        try:
            function(ranks)
        except AssertionError as error:
            report(name, f"rank {ranks.rank}: {error!r}")
        except Exception as error:
            report(name, f"rank {ranks.rank}: {error!r}")
            raise
        else:
            report(name, "")
        ranks.barrier()


def _int64(*values: int) -> Int64Vector:
    return np.array(values, dtype=np.int64)


def _raised(ranks: Ranks, error: BaseException | None) -> BaseException | None:
    """What a vote on `error` raises on this rank."""
    try:
        vote(ranks, "write", error)
    except BaseException as raised:  # noqa: BLE001 - what comes is what is checked
        return raised
    return None


@_check
def _ranks_are_numbered_from_zero_and_each_is_there_once(ranks: Ranks) -> None:
    """Ranks run from 0 to size - 1, and all agree on the size."""
    assert isinstance(ranks, Ranks)
    told = ranks.allgather(f"{ranks.rank}/{ranks.size}".encode())
    assert told == [f"{rank}/{ranks.size}".encode() for rank in range(ranks.size)]


@_check
def _every_rank_knows_the_same_nodes(ranks: Ranks) -> None:
    """One node index a rank, numbered by first appearance, equal on all ranks."""
    assert len(ranks.nodes) == ranks.size
    assert list(dict.fromkeys(ranks.nodes)) == list(range(len(set(ranks.nodes))))
    assert set(ranks.allgather(repr(ranks.nodes).encode())) == {repr(ranks.nodes).encode()}


@_check
def _nobody_passes_a_barrier_before_the_last_has_come(ranks: Ranks) -> None:
    """Whichever rank is late, all wait for it (times are of one machine's monotonic clock)."""
    for late in range(min(ranks.size, 4)):
        if ranks.rank == late:
            time.sleep(0.05)
        came = time.monotonic_ns()
        ranks.barrier()
        passed = time.monotonic_ns()
        last, first = (int(each) for each in ranks.allreduce_max(_int64(came, -passed)))
        assert last <= -first, f"a rank passed {last + first} ns before rank {late} came"


@_check
def _a_broadcast_gives_all_what_the_root_has(ranks: Ranks) -> None:
    """From every root, of any length, whatever bytes, and whatever the others bring."""
    for root in range(ranks.size):
        for data in (b"", b"\0", bytes(range(256)), bytes([root]) * (_MIB + 1)):
            brought = data if ranks.rank == root else b"ignored" * (ranks.rank + 1)
            assert ranks.broadcast(brought, root) == data


@_check
def _a_broadcast_comes_from_rank_0_unless_told_otherwise(ranks: Ranks) -> None:
    """Also under its name in votes."""
    assert ranks.broadcast(b"from %d" % ranks.rank) == b"from 0"
    assert agree_bytes(ranks, b"from %d" % ranks.rank) == b"from 0"


@_check
def _a_root_that_does_not_exist_is_refused(ranks: Ranks) -> None:
    """With a typed error, on every rank, and with nobody left waiting."""
    for root in (-1, ranks.size):
        try:
            ranks.broadcast(b"", root)
        except RanksError:
            continue
        raise AssertionError(f"root {root} of {ranks.size} ranks was taken")


@_check
def _an_allgather_keeps_order_and_length(ranks: Ranks) -> None:
    """Lengths differ by rank; zero, zero bytes and a megabyte are lengths and data like any other."""
    for unit in (1, 1000, _MIB):
        data = [bytes([rank]) * (rank * unit) for rank in range(ranks.size)]
        assert ranks.allgather(data[ranks.rank]) == data
    last = ranks.size - 1
    lone = ranks.allgather(b"\0\0" if ranks.rank == last else b"")
    assert lone == [b""] * last + [b"\0\0"]


@_check
def _an_allgather_of_nothing_is_nothing(ranks: Ranks) -> None:
    """The shape of a vote while all is well."""
    assert ranks.allgather(b"") == [b""] * ranks.size


@_check
def _data_comes_back_as_plain_bytes(ranks: Ranks) -> None:
    """No memoryview or bytearray that a later call could change."""
    gathered = ranks.allgather(b"abc")
    assert type(gathered) is list
    assert {type(each) for each in [*gathered, ranks.broadcast(b"abc")]} == {bytes}


@_check
def _a_maximum_is_taken_element_by_element(ranks: Ranks) -> None:
    """Over the whole range of int64; the vector that was given stays, and the result is another one."""
    top = np.iinfo(np.int64)
    mine = _int64(ranks.rank, -ranks.rank, top.min, top.max if ranks.rank == 0 else 0, 1 << 53)
    before = mine.copy()
    result = ranks.allreduce_max(mine)
    assert result.dtype == np.int64
    assert result.tolist() == [ranks.size - 1, 0, int(top.min), int(top.max), 1 << 53]
    result[:] = 7
    assert np.array_equal(mine, before)
    assert ranks.allreduce_max(_int64()).shape == (0,)


@_check
def _a_hundred_rounds_stay_in_step(ranks: Ranks) -> None:
    """Calls of every kind, one after the other, never mix."""
    for round_number in range(100):
        word = b"%d" % round_number
        assert ranks.broadcast(word, round_number % ranks.size) == word
        assert ranks.allgather(word * (ranks.rank % 2)) == [word * (r % 2) for r in range(ranks.size)]
        assert ranks.allreduce_max(_int64(round_number * ranks.rank))[0] == round_number * (ranks.size - 1)


@_check
def _a_forked_child_that_calls_nothing_harms_nobody(ranks: Ranks) -> None:
    """As DataLoader workers are forked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, where there are threads
        child = os.fork()
    if child == 0:
        os._exit(33)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 33
    assert ranks.allgather(b"%d" % ranks.rank) == [b"%d" % rank for rank in range(ranks.size)]


@_check
def _a_vote_without_error_passes(ranks: Ranks) -> None:
    """On every rank."""
    assert _raised(ranks, None) is None


@_check
def _one_failing_rank_fails_the_vote_for_all(ranks: Ranks) -> None:
    """The same class, text and hint everywhere; `where` names the rank; chained where it is local."""
    for failing in range(ranks.size):
        local = SaveError("cannot write", where="/scratch/run", hint="look") if ranks.rank == failing else None
        raised = _raised(ranks, local)
        assert isinstance(raised, SaveError)
        assert (raised.what, raised.hint) == ("cannot write", "look")
        assert "/scratch/run" in raised.where
        assert ranks.size == 1 or raised.where.startswith(f"rank {failing}")
        assert ranks.size == 1 or raised.__cause__ is local


@_check
def _of_several_failures_the_first_is_raised_and_the_others_counted(ranks: Ranks) -> None:
    """All ranks but rank 0 fail, then all do."""
    for first in range(min(2, ranks.size)):
        raised = _raised(ranks, SaveError(f"from {ranks.rank}") if ranks.rank >= first else None)
        assert isinstance(raised, SaveError)
        assert f"from {first}" in raised.what
        others = ranks.size - first - 1
        assert (f"{others} more of {ranks.size} ranks" in raised.what) == (others > 0)


@_check
def _damage_is_named_on_every_rank(ranks: Ranks) -> None:
    """Generation, tensor and offset travel with the error."""
    damage = DamagedError("bad unit", generation="g000000000120-a0002", tensor="model/w", offset=1 << 40)
    raised = _raised(ranks, damage if ranks.rank == ranks.size - 1 else None)
    assert isinstance(raised, DamagedError)
    assert (raised.generation, raised.tensor, raised.offset) == ("g000000000120-a0002", "model/w", 1 << 40)


@_check
def _a_full_filesystem_is_a_no_space_error(ranks: Ranks) -> None:
    """The quota counts too; other errors of the system are a peer's failure."""
    for number, kind in (
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EIO, PeerFailureError),
    ):
        raised = _raised(ranks, OSError(number, os.strerror(number), "/scratch/x") if ranks.rank == 0 else None)
        assert type(raised) is kind, f"{errno.errorcode[number]} became {raised!r}"


@_check
def _a_foreign_exception_becomes_a_peer_failure_that_names_it(ranks: Ranks) -> None:
    """Of whatever class, with text that is not ASCII, and without executing anything."""
    local = ZeroDivisionError("Δ = 0 \ud800") if ranks.rank == ranks.size - 1 else None
    raised = _raised(ranks, local)
    assert isinstance(raised, PeerFailureError)
    assert "ZeroDivisionError" in raised.what
    assert "write" in raised.what
    assert f"rank {ranks.size - 1}" in raised.where
    assert raised.__cause__ is local


@_check
def _a_subclass_that_peers_do_not_know_becomes_its_nearest_base(ranks: Ranks) -> None:
    """Errors may be refined in one rank's code."""

    class LocalSaveError(SaveError):
        pass

    raised = _raised(ranks, LocalSaveError("odd") if ranks.rank == 0 else None)
    assert isinstance(raised, SaveError)
    assert ranks.size == 1 or type(raised) is SaveError


@_check
def _an_interrupt_stays_one_where_it_came_and_fails_the_peers(ranks: Ranks) -> None:
    """KeyboardInterrupt and SystemExit are never swallowed, nor do they leave the peers waiting."""
    for local in (KeyboardInterrupt(), SystemExit(3)):
        raised = _raised(ranks, local if ranks.rank == 0 else None)
        if ranks.rank == 0:
            assert raised is local
        else:
            assert isinstance(raised, PeerFailureError)
            assert type(local).__name__ in raised.what


@_check
def _after_failed_votes_the_ranks_are_still_in_step(ranks: Ranks) -> None:
    """A vote costs every rank the same calls, whatever it brings."""
    for failing in (*range(ranks.size), -1):
        raised = _raised(ranks, HpcresumeError("x") if ranks.rank == failing else None)
        assert (raised is None) == (failing == -1)
    assert ranks.allgather(b"%d" % ranks.rank) == [b"%d" % rank for rank in range(ranks.size)]


@_check
def _an_mpi_communicator_has_the_same_ranks(ranks: Ranks) -> None:
    """Where there is one."""
    communicator = ranks.mpi()
    assert (communicator is not None) == (ranks.backend == "mpi")
    if communicator is not None:
        assert (communicator.Get_rank(), communicator.Get_size()) == (ranks.rank, ranks.size)
