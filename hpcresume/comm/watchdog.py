"""The watchdog: names the ranks that do not reach a collective, and ends a process that would wait for ever.

No collective can be timed out from inside, and a rank that is stopped, swapped out or stuck in a dead
filesystem cannot say so. Owns when to give up and how to leave; the marks that waiting ranks make are in
`roll_call`. Makes no collective call.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from hpcresume.comm.ranks import Ranks
from hpcresume.comm.roll_call import Answer, call_roll, is_called, leave_mark
from hpcresume.console import tell
from hpcresume.errors import RanksMissingError
from hpcresume.model import Emit, Event, ignore_events

__all__ = ["Watchdog"]

_T = TypeVar("_T")

FAREWELL_SECONDS: Final = 10.0
"""How long the last words may take; after that the process ends whatever hangs (filesystem, stderr, MPI)."""

_LONGEST_TICK: Final = 0.5
_LOOKS: Final = 20
"""How often a waiting rank looks at the roll call within its timeout, on a filesystem others use too."""


class _Wait:
    """One guarded collective: what it is, since when, and when to look at the roll call next.

    Times are seconds on the watchdog's own clock.
    """

    __slots__ = ("look_at", "name", "outer", "serial", "since", "timeout")

    def __init__(self, serial: int, name: str, timeout: float, since: float, outer: _Wait | None) -> None:
        self.serial = serial
        self.name = name
        self.timeout = timeout
        self.since = since
        self.look_at = since + timeout / _LOOKS
        self.outer = outer


class Watchdog:
    """Watches the collectives of this process.

    `with watchdog.guard("save step 40"): ranks.barrier()` returns as soon as the block does. A rank that
    has waited for half the timeout calls the roll: it leaves an empty file in `directory`, and so does
    every other rank that waits. At the timeout the rank prints who has left none, emits "ranks-missing",
    and ends the job through `ranks.abort`, or just this process where that hangs too.

    What is guarded must not let anyone pass before all have come (barrier, allgather, allreduce_max, a
    vote); put a barrier before a broadcast. Every rank makes the same guards in the same order, from one
    thread. Time in which the process itself did not run (SIGSTOP, a suspended job) does not count.
    A rank that came within the last twentieth of the timeout may be named as missing too.

    Attributes:
        directory: where marks are left, on a filesystem that all ranks see; may be set later. None: ranks
            that are missing cannot be named.
        timeout: seconds, for guards that give none; `math.inf` never ends anything.

    Args:
        ranks: who is watched; one rank alone is not.
        emit: is given the event "ranks-missing", from another thread.
        exit: ends this process (tests put something else here).
    """

    def __init__(
        self,
        ranks: Ranks,
        directory: Path | None,
        timeout: float,
        emit: Emit = ignore_events,
        exit: Callable[[int], object] = os._exit,
    ) -> None:
        self.directory = directory
        self.timeout = timeout
        self._ranks = ranks
        self._emit = emit
        self._exit = exit
        self._wait: _Wait | None = None
        self._serial = 0
        self._clock = 0.0
        self._closed = threading.Event()
        self._attendant: threading.Thread | None = None
        if ranks.size > 1:
            threading.Thread(target=self._keep_time, name="hpcresume watchdog", daemon=True).start()

    def guard(self, name: str, timeout: float | None = None) -> Watchdog:
        """Watch the `with` block that follows. Guards may be nested: the innermost is watched.

        Args:
            name: what is waited for, the same on every rank: "save step 40".
            timeout: seconds, instead of the watchdog's own.
        """
        self._serial += 1
        seconds = self.timeout if timeout is None else timeout
        self._wait = _Wait(self._serial, name, seconds, self._clock, self._wait)
        return self

    def __enter__(self) -> None:
        """Nothing to do: `guard` has begun to watch."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching this block."""
        if self._wait is not None:
            self._wait = self._wait.outer

    def close(self) -> None:
        """Stop watching for good."""
        self._closed.set()

    def _keep_time(self) -> None:
        """Body of the watchdog's thread. Touches nothing that can hang: no file, no stderr, no MPI."""
        before = time.monotonic()
        while True:
            tick = min(_LONGEST_TICK, self._shortest_timeout() / _LOOKS)
            if self._closed.wait(tick):
                return
            now = time.monotonic()
            # Capped: a process that was stopped must not find its patience gone when it goes on.
            self._clock += min(now - before, 2 * tick)
            before = now
            wait = self._wait
            if wait is not None and self._clock - wait.since >= wait.timeout:
                self._leave(wait)
                return
            if wait is not None and self._clock >= wait.look_at:
                wait.look_at += wait.timeout / _LOOKS
                self._attend(wait)

    def _shortest_timeout(self) -> float:
        wait = self._wait
        return max(0.2, self.timeout if wait is None else min(self.timeout, wait.timeout))

    def _attend(self, wait: _Wait) -> None:
        """Have another thread answer the roll call, unless the last one still hangs in the filesystem."""
        if self.directory is None or (self._attendant is not None and self._attendant.is_alive()):
            return
        self._attendant = threading.Thread(
            target=self._answer, args=(wait, self.directory), name="hpcresume roll call", daemon=True
        )
        with contextlib.suppress(RuntimeError):  # no more threads: this rank will be named as missing
            self._attendant.start()

    def _answer(self, wait: _Wait, directory: Path) -> None:
        waited = self._clock - wait.since
        with contextlib.suppress(OSError):  # then it is named as missing: the best it can do
            if waited >= wait.timeout / 2 or is_called(directory, wait.serial):
                leave_mark(directory, wait.serial, wait.name, self._ranks.rank)
                wait.look_at = math.inf

    def _leave(self, wait: _Wait) -> None:
        try:
            account = _within(FAREWELL_SECONDS / 2, lambda: self._account(wait))
            answer, why = account or (None, "the directory of the roll call does not answer")
            _within(FAREWELL_SECONDS / 2, lambda: self._say_farewell(wait, answer, why))
        finally:
            self._exit(RanksMissingError.exit_code)

    def _account(self, wait: _Wait) -> tuple[Answer | None, str]:
        """Who is missing, or why that is unknown."""
        if self.directory is None:
            return None, "there is no roll call"
        try:
            leave_mark(self.directory, wait.serial, wait.name, self._ranks.rank)
            return call_roll(self.directory, wait.serial, self._ranks.size), ""
        except OSError as error:
            return None, f"the roll call failed: {error}"

    def _say_farewell(self, wait: _Wait, answer: Answer | None, why: str) -> None:
        text = f"some of {self._ranks.size} ranks have not reached {wait.name!r} after {wait.timeout:g} s; {why}"
        if answer is not None:
            text = answer.text(wait.name, wait.timeout)
            if answer.present[0] != self._ranks.rank:
                time.sleep(FAREWELL_SECONDS / 5)  # the first of those present speaks for all, if it can
        missing = None if answer is None else list(answer.missing)
        fields = {"waiting_for": wait.name, "seconds": wait.timeout, "missing": missing, "text": text}
        tell(f"hpcresume: rank {self._ranks.rank}: {text}")
        with contextlib.suppress(Exception):  # nothing may keep a process that has to end
            self._emit(Event("ranks-missing", fields))
        with contextlib.suppress(Exception, SystemExit):
            self._ranks.abort(RanksMissingError.exit_code)


def _within(seconds: float, work: Callable[[], _T]) -> _T | None:
    """What `work` returns, or None when it is not done in time: it goes on in its own thread."""
    results: list[_T] = []
    thread = threading.Thread(target=lambda: results.append(work()), name="hpcresume farewell", daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None
