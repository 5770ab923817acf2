"""The contract of ranks, kept by the backends that live in one process."""

from __future__ import annotations

from hpcresume.comm.single import SingleRanks
from hpcresume.testing.ranks_contract import CHECKS, RanksContract, run_checks
from hpcresume.testing.thread_ranks import run_ranks, unwrap


class TestSingle(RanksContract):
    def run_check(self, name: str) -> None:
        CHECKS[name](SingleRanks())


class ThreadsContract(RanksContract):
    left_out = frozenset({"a_forked_child_that_calls_nothing_harms_nobody"})  # threads are one process
    size = 0
    nodes: tuple[int, ...] = ()

    def run_check(self, name: str) -> None:
        unwrap(run_ranks(self.size, CHECKS[name], nodes=self.nodes, timeout=20))


class TestTwoThreads(ThreadsContract):
    size, nodes = 2, (0, 0)


class TestFiveThreadsOnThreeNodes(ThreadsContract):
    size, nodes = 5, (0, 1, 0, 2, 1)


class DeafRanks(SingleRanks):
    """A backend that loses what it broadcasts."""

    def broadcast(self, data: bytes, root: int = 0) -> bytes:
        return super().broadcast(data, root)[:1]


def test_the_contract_notices_a_backend_that_loses_bytes():
    outcome: dict[str, str] = {}
    run_checks(DeafRanks(), outcome.__setitem__)
    assert list(outcome) == list(CHECKS)
    failed = {name for name, text in outcome.items() if text}
    assert "a_broadcast_gives_all_what_the_root_has" in failed
    assert "an_allgather_keeps_order_and_length" not in failed
