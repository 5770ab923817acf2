"""Votes beyond the contract: what no healthy peer would send."""

from __future__ import annotations

import inspect
import json

import pytest

from hpcresume import errors
from hpcresume.comm.single import SingleRanks
from hpcresume.comm.vote import vote
from hpcresume.errors import HpcresumeError, PeerFailureError, SaveError
from hpcresume.testing.thread_ranks import ThreadRanks, run_ranks, unwrap

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HpcresumeError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_of_the_tree_is_raised_as_itself_on_the_peers(kind):
    def body(ranks: ThreadRanks) -> tuple[object, ...]:
        with pytest.raises(HpcresumeError) as caught:
            vote(ranks, "write", kind("what", where="there", hint="that") if ranks.rank else None)
        return type(caught.value), caught.value.what, caught.value.where, caught.value.hint

    assert unwrap(run_ranks(2, body)) == [(kind, "what", "rank 1: there", "that")] * 2


def test_a_single_rank_gets_its_own_error_back():
    error = SaveError("x", where="y")
    with pytest.raises(SaveError) as caught:
        vote(SingleRanks(), "write", error)
    assert caught.value is error
    assert caught.value.where == "y"


@pytest.mark.parametrize("name", ["int", "HpcresumeWarning", "__builtins__", "eval", None, 3])
def test_a_class_that_is_no_error_of_ours_is_never_built(name):
    class Forged(SingleRanks):
        size = 2

        def allgather(self, data: bytes) -> list[bytes]:
            return [data, json.dumps({"class": name, "what": "boo"}).encode()]

    with pytest.raises(PeerFailureError, match="boo"):
        vote(Forged(), "write", None)


def test_while_all_is_well_only_empty_bytes_travel():
    sent: list[bytes] = []

    class Listening(SingleRanks):
        def allgather(self, data: bytes) -> list[bytes]:
            sent.append(data)
            return super().allgather(data)

    vote(Listening(), "write", None)
    assert sent == [b""]


def test_the_interrupted_rank_raises_its_interrupt_even_when_another_failed_first():
    def body(ranks: ThreadRanks) -> type[BaseException]:
        mine = SaveError("full") if ranks.rank == 0 else KeyboardInterrupt() if ranks.rank == 1 else None
        with pytest.raises(BaseException) as caught:
            vote(ranks, "write", mine)
        return caught.type

    assert unwrap(run_ranks(3, body)) == [SaveError, KeyboardInterrupt, SaveError]
