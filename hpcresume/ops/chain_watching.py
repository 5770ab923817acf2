"""A chain over time: which stage has changed its state, until all are done or nothing more happens by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.errors import SlurmError
from hpcresume.ops.chain_record import stages_at
from hpcresume.ops.overview import Row, overview
from hpcresume.slurm.queue import QueuedJob, ask_queue

__all__ = ["ChainLook", "ChainWatcher"]

AskQueue = Callable[[Iterable[str]], Mapping[str, QueuedJob]]
MOVING = frozenset({"running", "pending", "requeued"})
"""States from which a stage goes on by itself, when those before it are done."""
SURE_LOOKS = 2
"""Questions to Slurm after which a chain that stands still is believed to: while a job is requeued it looks alike."""
SOON = 3.0
"""Seconds until Slurm is asked again after a stage has ended, or while nothing seems to move."""


@dataclass(frozen=True)
class ChainLook:
    """What a look has found: all stages, those that have changed, and whether more will happen by itself."""

    rows: tuple[Row, ...]
    changed: tuple[Row, ...]
    over: bool

    @property
    def done(self) -> bool:
        """Are all of them?"""
        return all(row.state.state == "done" for row in self.rows)


@dataclass
class ChainWatcher:
    """Looks at the chain at a path; `ask_every` is the least number of seconds between two questions to Slurm."""

    path: str
    ask_every: float = 30.0
    ask: AskQueue = ask_queue
    clock: Callable[[], float] = time.monotonic
    _asked_at: float = float("-inf")
    _answer: Mapping[str, QueuedJob] = field(default_factory=dict)
    _error: SlurmError | None = None
    _questions: int = 0
    _still_since: int | None = None
    _told: dict[Path, str] = field(default_factory=dict)
    _done: int = 0

    def look(self) -> ChainLook:
        """Look now.

        Raises:
            RunDirectoryError: the record of the stages cannot be read.
        """
        rows = overview(stages_at(self.path), ask=self._ask).rows
        done = sum(row.seen.done for row in rows)
        if done != self._done:  # what waited for it moves now
            self._done = done
            self._ask_soon()
        changed = [row for row in rows if self._told.get(row.seen.root) != row.state.state + row.state.next]
        self._told |= {row.seen.root: row.state.state + row.state.next for row in changed}
        return ChainLook(rows, tuple(changed), self._over(rows))

    def _ask(self, job_ids: Iterable[str]) -> Mapping[str, QueuedJob]:
        """Slurm's answer, or the last one while that is fresh enough."""
        if self.clock() - self._asked_at >= self.ask_every:
            self._asked_at = self.clock()
            self._questions += 1
            try:
                self._answer, self._error = self.ask(job_ids), None
            except SlurmError as error:
                self._error = error
        if self._error is not None:
            raise self._error
        return self._answer

    def _ask_soon(self) -> None:
        self._asked_at = min(self._asked_at, self.clock() - self.ask_every + SOON)

    def _over(self, rows: Iterable[Row]) -> bool:
        if all(row.state.state == "done" for row in rows):
            return True
        if any(row.state.state in MOVING and not row.waits_for for row in rows):
            self._still_since = None
            return False
        if self._still_since is None:
            self._still_since = self._questions
        self._ask_soon()
        return self._questions - self._still_since >= SURE_LOOKS
