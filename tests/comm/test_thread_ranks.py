"""Ranks as threads: what the tests of everything above rely on."""

from __future__ import annotations

import time

import pytest

from hpcresume.errors import PeerFailureError, RanksError, RanksMissingError
from hpcresume.testing.thread_ranks import RanksAborted, ThreadRanks, ThreadWorld, run_ranks, unwrap


def test_results_come_in_rank_order_with_the_exceptions_in_their_place():
    def body(ranks: ThreadRanks) -> int:
        ranks.barrier()
        if ranks.rank == 1:
            raise ValueError("mine")
        return ranks.rank * 10

    first, second, third = run_ranks(3, body)
    assert (first, third) == (0, 20)
    assert isinstance(second, ValueError)
    with pytest.raises(ValueError, match="mine"):
        unwrap([first, second, third])
    assert unwrap([first, third]) == [0, 20]


def test_peers_of_a_rank_that_raised_do_not_wait_for_it():
    def body(ranks: ThreadRanks) -> None:
        if ranks.rank == 0:
            raise KeyError("gone")
        ranks.allgather(b"")

    began = time.monotonic()
    gone, waiting = run_ranks(2, body)
    assert isinstance(gone, KeyError)
    assert isinstance(waiting, PeerFailureError)
    assert "rank 0 left with KeyError" in str(waiting)
    assert waiting.__cause__ is gone
    assert time.monotonic() - began < 5


def test_a_rank_that_returns_too_early_is_missed():
    first, second = run_ranks(2, lambda ranks: ranks.barrier() if ranks.rank else None)
    assert first is None
    assert isinstance(second, RanksMissingError)
    assert "ranks 0 have not reached barrier" in str(second)


def test_collectives_that_do_not_match_are_an_error_on_every_rank():
    def body(ranks: ThreadRanks) -> object:
        return ranks.barrier() if ranks.rank else ranks.allgather(b"")

    for result in run_ranks(2, body):
        assert isinstance(result, RanksError)
        assert "rank 0: allgather, rank 1: barrier" in str(result)


def test_different_roots_do_not_match():
    results = run_ranks(2, lambda ranks: ranks.broadcast(b"", ranks.rank))
    assert [type(result) for result in results] == [RanksError, RanksError]


def test_a_rank_that_is_too_late_fails_on_both_sides():
    def body(ranks: ThreadRanks) -> None:
        if ranks.rank == 1:
            time.sleep(0.6)
        ranks.barrier()

    early, late = run_ranks(2, body, timeout=0.2)
    assert isinstance(early, RanksMissingError)
    assert isinstance(late, PeerFailureError)


def test_an_abort_ends_every_rank():
    def body(ranks: ThreadRanks) -> None:
        if ranks.rank == 2:
            ranks.abort(9)
        ranks.barrier()

    results = run_ranks(3, body)
    assert [(type(result), result.code) for result in results if isinstance(result, SystemExit)] == [
        (RanksAborted, 9)
    ] * 3


def test_nodes_are_as_the_test_says():
    assert unwrap(run_ranks(3, lambda ranks: ranks.nodes, nodes=(0, 0, 1))) == [(0, 0, 1)] * 3
    with pytest.raises(RanksError):
        ThreadWorld(3, nodes=(0,))
