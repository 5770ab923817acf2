"""The watchdog among threads: who is named, who is left alone, and that nothing can keep it from leaving."""

from __future__ import annotations

import io
import math
import sys
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcresume.comm import watchdog as watchdog_module
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.roll_call import leave_mark
from hpcresume.comm.single import SingleRanks
from hpcresume.comm.watchdog import Watchdog
from hpcresume.model import Event
from hpcresume.testing.thread_ranks import RanksAborted, ThreadRanks, ThreadWorld, run_ranks, unwrap

TIMEOUT = 0.8


@dataclass
class Witness:
    """The watchdogs of all ranks, and what they did."""

    watchdogs: list[Watchdog] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)

    def watch(self, ranks: Ranks, directory: Path | None, timeout: float = TIMEOUT) -> Watchdog:
        watchdog = Watchdog(ranks, directory, timeout, self.events.append, self.exits.append)
        self.watchdogs.append(watchdog)
        return watchdog

    def wait_for_exits(self, count: int) -> None:
        end = time.monotonic() + 20
        while len(self.exits) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.exits) >= count
        assert set(self.exits) == {71}


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Witness]:
    """Last words take a second at most, and none is spoken into the next test."""
    monkeypatch.setattr(watchdog_module, "FAREWELL_SECONDS", 1.0)
    witness = Witness()
    yield witness
    for watchdog in witness.watchdogs:
        watchdog.close()
    for thread in threading.enumerate():
        if thread.name.startswith("hpcresume"):
            thread.join(10)
            assert not thread.is_alive(), thread.name


def never_come(witness: Witness, directory: Path | None, absent: tuple[int, ...]) -> Callable[[ThreadRanks], None]:
    """A body in which the `absent` ranks pass one barrier and then do not reach the next."""

    def body(ranks: ThreadRanks) -> None:
        watchdog = witness.watch(ranks, directory)
        with watchdog.guard("start"):
            ranks.barrier()
        if ranks.rank in absent:
            watchdog.close()
            witness.wait_for_exits(1)
            return
        with watchdog.guard("save step 40"):
            ranks.barrier()

    return body


def test_ranks_that_never_arrive_are_named_and_the_others_leave_with_71(witness, tmp_path, capfd):
    results = run_ranks(5, never_come(witness, tmp_path / "roll-call", absent=(1, 3)), timeout=30)
    assert [type(result) for result in results] == [RanksAborted, type(None), RanksAborted, type(None), RanksAborted]
    assert "ranks 1, 3 have not reached 'save step 40' after 0.8 s" in capfd.readouterr().err
    assert {event.name for event in witness.events} == {"ranks-missing"}
    assert witness.events[0].fields["missing"] == [1, 3]
    assert witness.events[0].fields["waiting_for"] == "save step 40"


def test_the_first_rank_that_is_there_speaks_before_the_others(witness, tmp_path, capfd):
    run_ranks(4, never_come(witness, tmp_path / "roll-call", absent=(0,)), timeout=30)
    assert capfd.readouterr().err.startswith("hpcresume: rank 1: rank 0 has not reached")


def test_without_a_directory_it_says_that_who_is_missing_is_unknown(witness, capfd):
    run_ranks(2, never_come(witness, None, absent=(1,)), timeout=30)
    assert "some of 2 ranks have not reached 'save step 40'" in capfd.readouterr().err
    assert witness.events[0].fields["missing"] is None


def test_a_directory_that_cannot_be_used_keeps_nobody(witness, tmp_path, capfd):
    run_ranks(2, never_come(witness, tmp_path / "no" / "such" / "place", absent=(1,)), timeout=30)
    assert "the roll call failed" in capfd.readouterr().err
    assert witness.exits == [71]


def test_a_filesystem_that_hangs_keeps_nobody(witness, tmp_path, monkeypatch, capfd):
    hung = threading.Event()
    released = threading.Event()

    def hang(*_: object) -> None:
        hung.set()
        released.wait(30)

    monkeypatch.setattr(watchdog_module, "leave_mark", hang)
    run_ranks(2, never_come(witness, tmp_path / "roll-call", absent=(1,)), timeout=30)
    released.set()
    assert hung.is_set()
    assert "does not answer" in capfd.readouterr().err
    assert witness.exits == [71]


def test_an_abort_that_hangs_keeps_nobody(witness, tmp_path, monkeypatch):
    hung = threading.Event()
    released = threading.Event()

    def hang(self: ThreadRanks, code: int) -> None:
        hung.set()
        released.wait(30)

    monkeypatch.setattr(ThreadRanks, "abort", hang)
    run_ranks(2, never_come(witness, tmp_path / "roll-call", absent=(1,)), timeout=5)
    released.set()
    assert hung.is_set()
    assert witness.exits == [71]


def test_a_closed_stderr_and_a_failing_emit_keep_nobody(witness, tmp_path, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    emitted: list[Event] = []

    def fail(event: Event) -> None:
        emitted.append(event)
        raise RuntimeError("no ledger")

    def body(ranks: ThreadRanks) -> None:
        watchdog = Watchdog(ranks, tmp_path / "roll-call", TIMEOUT, fail, witness.exits.append)
        if ranks.rank == 1:
            watchdog.close()
            time.sleep(2 * TIMEOUT)
        with watchdog.guard("save"):
            ranks.barrier()

    run_ranks(2, body, timeout=10)
    assert len(emitted) == 1
    assert witness.exits == [71]


def test_a_rank_that_is_late_but_comes_harms_nobody(witness, tmp_path):
    came_late: list[bool] = []

    def body(ranks: ThreadRanks) -> None:
        watchdog = witness.watch(ranks, tmp_path / "roll-call")
        for number in range(3):
            if ranks.rank == number:
                time.sleep(0.7 * TIMEOUT)
            with watchdog.guard(f"save {number}"):
                ranks.barrier()
        came_late.append((tmp_path / "roll-call").is_dir())
        time.sleep(1.2 * TIMEOUT)  # outside of a guard, nothing is awaited
        watchdog.close()

    unwrap(run_ranks(3, body, timeout=30))
    assert came_late == [True] * 3, "the roll was never called: the rank was not late enough"
    assert (witness.events, witness.exits) == ([], [])


def test_waits_that_are_short_leave_no_trace(witness, tmp_path):
    def body(ranks: ThreadRanks) -> None:
        watchdog = witness.watch(ranks, tmp_path / "roll-call")
        end = time.monotonic() + TIMEOUT
        for number in range(20):
            with watchdog.guard(f"step {number}"):
                ranks.barrier()
            time.sleep(max(0.0, end - time.monotonic()) / 20)
        watchdog.close()

    unwrap(run_ranks(3, body, timeout=30))
    assert list(tmp_path.iterdir()) == []


def test_a_wait_of_which_everybody_is_part_is_called_a_hang(witness, tmp_path, capfd):
    def body(ranks: ThreadRanks) -> None:
        watchdog = witness.watch(ranks, tmp_path / "roll-call")
        with watchdog.guard("write"):
            witness.wait_for_exits(2)

    unwrap(run_ranks(2, body, timeout=30))
    assert "every rank has reached 'write', and it has not ended after 0.8 s" in capfd.readouterr().err


def test_a_guard_may_have_its_own_timeout_and_the_outer_guard_goes_on(witness, tmp_path, capfd):
    def body(ranks: ThreadRanks) -> None:
        watchdog = witness.watch(ranks, tmp_path / "roll-call", math.inf)
        with watchdog.guard("restore", timeout=TIMEOUT):
            with watchdog.guard("vote"):
                time.sleep(1.5 * TIMEOUT)  # the inner guard has all the time there is
            assert witness.exits == []
            witness.wait_for_exits(2)

    unwrap(run_ranks(2, body, timeout=30))
    assert "'restore'" in capfd.readouterr().err


def test_where_a_missing_rank_waits_instead_is_said(witness, tmp_path, capfd):
    leave_mark(tmp_path, 9, "load step 3", 1)
    leave_mark(tmp_path, 1, "start", 2)

    def body(ranks: ThreadRanks) -> None:
        watchdog = witness.watch(ranks, tmp_path)
        if ranks.rank:
            watchdog.close()
            time.sleep(2 * TIMEOUT)
            return
        for number in range(4):
            with watchdog.guard(f"step {number}"):
                pass
        with watchdog.guard("save"):
            witness.wait_for_exits(1)

    unwrap(run_ranks(3, body, timeout=30))
    said = capfd.readouterr().err
    assert "rank 2 has not reached 'save'" in said, "rank 1 has passed it: it waits further on"
    assert "rank 1 was last seen in 'load-step-3'" in said
    assert "rank 2 was last seen in 'start'" in said


def test_a_single_rank_is_not_watched():
    before = threading.active_count()
    with Watchdog(SingleRanks(), None, 0.01).guard("alone"):
        assert threading.active_count() == before


@pytest.mark.alone
def test_a_guard_costs_less_than_two_microseconds():
    watchdog = Watchdog(ThreadRanks(ThreadWorld(2), 0), None, 300.0)

    def guarded() -> None:
        with watchdog.guard("step"):
            pass

    seconds = min(timeit.repeat(guarded, number=20_000, repeat=20)) / 20_000
    watchdog.close()
    print(f"a guard costs {seconds * 1e6:.2f} µs")
    assert seconds <= 2e-6
