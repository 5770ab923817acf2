"""A chain over time: which stage has changed its state, until all are done or nothing more happens by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.ops.chain_record import stages_at
from hpcresume.ops.overview import Row, overview
from hpcresume.ops.seldom import AskQueue, Seldom
from hpcresume.slurm.queue import ask_queue

__all__ = ["ChainLook", "ChainWatcher"]

MOVING = frozenset({"running", "pending", "requeued"})
"""States from which a stage goes on by itself, when those before it are done."""
SURE_LOOKS = 2
"""Questions to Slurm after which a chain that stands still is believed to: while a job is requeued it looks alike."""


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
    _still_since: int | None = None
    _told: dict[Path, str] = field(default_factory=dict)
    _done: int = 0

    def __post_init__(self) -> None:
        self._slurm = Seldom(self.ask, self.ask_every, self.clock)

    def look(self) -> ChainLook:
        """Look now.

        Raises:
            RunDirectoryError: the record of the stages cannot be read.
        """
        rows = overview(stages_at(self.path), ask=self._slurm).rows
        done = sum(row.seen.done for row in rows)
        if done != self._done:  # what waited for it moves now
            self._done = done
            self._slurm.soon()
        changed = [row for row in rows if self._told.get(row.seen.root) != row.state.state + row.state.next]
        self._told |= {row.seen.root: row.state.state + row.state.next for row in changed}
        return ChainLook(rows, tuple(changed), self._over(rows))

    def _over(self, rows: Iterable[Row]) -> bool:
        if all(row.state.state == "done" for row in rows):
            return True
        if any(row.state.state in MOVING and not row.waits_for for row in rows):
            self._still_since = None
            return False
        if self._still_since is None:
            self._still_since = self._slurm.questions
        self._slurm.soon()
        return self._slurm.questions - self._still_since >= SURE_LOOKS
