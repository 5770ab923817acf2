"""A run over time: its state, its pace, and each thing that happens, until it is done or needs somebody.

Looks at the files often and asks Slurm seldom. Draws nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hpcresume.errors import SlurmError
from hpcresume.io.paths import RunPaths
from hpcresume.observe.figures import duration
from hpcresume.observe.follow import RunFollower, Update
from hpcresume.observe.ledger_reader import MetricRecord, Record
from hpcresume.observe.metrics_end import last_metrics
from hpcresume.observe.narrate import Line, narrate
from hpcresume.ops.overview import Row, overview
from hpcresume.ops.seldom import AskQueue, Seldom
from hpcresume.slurm.queue import ask_queue

__all__ = ["Look", "Watcher", "words_of"]

PACE_SECONDS = 60.0
"""The pace is that of the last minute."""
SURE_LOOKS = 2
"""A run counts as held or ended when Slurm has been asked so often in a row and it is still so: between the end of an
attempt and the requeue of its job there may be a moment that looks alike."""


@dataclass(frozen=True)
class Look:
    """What a look has found.

    Attributes:
        row: the run as it is.
        lines: what has happened since the look before.
        updates: the same, as events.
        metrics: what was logged last.
        pace: steps a second over the last minute, None while not known.
        seconds_left: until the last step at this pace, None while not known.
        over: nothing more will happen by itself.
        slurm_error: why Slurm could not be asked the last time.
    """

    row: Row
    lines: tuple[Line, ...]
    updates: tuple[Update, ...]
    metrics: MetricRecord | None
    pace: float | None
    seconds_left: float | None
    over: bool
    slurm_error: SlurmError | None


@dataclass
class Watcher:
    """Looks at one run; `ask_every` is the least number of seconds between two questions to Slurm."""

    run: RunPaths
    ask_every: float = 30.0
    ask: AskQueue = ask_queue
    clock: Callable[[], float] = time.monotonic
    _sure: int = 0
    _sure_at: int = -1
    _steps: deque[tuple[float, int, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._follower = RunFollower(self.run, ("session", "supervisor"))
        self._slurm = Seldom(self.ask, self.ask_every, self.clock)

    def look(self) -> Look:
        """Look now.

        Raises:
            OSError: a file of the run is there and cannot be read.
        """
        updates = self._follower.poll()
        if any(u.source == "supervisor" and u.record.event in ("started", "ended", "requeue")  # type: ignore[union-attr]
               for u in updates):  # fmt: skip
            self._slurm.soon()
        row = overview([self.run.root], ask=self._slurm).rows[0]
        newest = row.seen.newest
        metrics = last_metrics(self.run.attempt(newest.attempt).metrics) if newest is not None else None
        pace = self._pace(row)
        left = None
        if pace and newest is not None and newest.total is not None and row.state.state == "running":
            left = max(0, newest.total - newest.step) / pace
        lines = [line for update in updates for line in words_of(update)]
        return Look(row, tuple(lines), tuple(updates), metrics, pace, left, self._over(row), self._slurm.error)

    def _over(self, row: Row) -> bool:
        state = row.state.state
        if state in ("done", "unreadable"):
            return True
        if state not in ("held", "ended"):
            self._sure, self._sure_at = 0, -1
            return False
        if row.job_id is None or self._slurm.questions != self._sure_at:
            self._sure, self._sure_at = self._sure + 1, self._slurm.questions
            self._slurm.soon()
        return self._sure >= SURE_LOOKS

    def _pace(self, row: Row) -> float | None:
        newest = row.seen.newest
        if newest is None:
            return None
        now = self.clock()
        if self._steps and self._steps[-1][1] != newest.attempt:
            self._steps.clear()
        self._steps.append((now, newest.attempt, newest.step))
        while now - self._steps[0][0] > PACE_SECONDS and len(self._steps) > 2:
            self._steps.popleft()
        seconds, steps = now - self._steps[0][0], newest.step - self._steps[0][2]
        return steps / seconds if steps > 0 and seconds > 0 else None


def words_of(update: Update) -> list[Line]:
    """What an event means, as lines for people; none when nobody needs to see it."""
    record = update.record
    if not isinstance(record, Record):
        return []
    if update.source == "supervisor":
        text, tone = _of_supervisor(record)
        if text:
            return [Line(record.t, f"attempt {update.attempt}: {text}", tone)]
    return narrate(update)


def _of_supervisor(record: Record) -> tuple[str, str]:
    if record.event == "started":
        job = record.text("job_id")
        return (f"starts in job {job} on {record.text('host')}" if job else f"starts on {record.text('host')}"), "plain"
    if record.event == "warning-received":
        return f"the job is told by {record.text('signal')}", "warn"
    if record.event == "lead":
        return f"the ranks are told {duration(record.number('seconds'))} before the end: {record.text('why')}", "plain"
    if record.event == "warning-by-clock":
        return f"our own clock tells the ranks, {duration(record.number('left'))} before the end", "warn"
    if record.event == "short-allocation":
        left, needed = duration(record.number("left")), duration(record.number("needed"))
        return f"the allocation has {left} left, and the run needs {needed}: it may come to nothing", "bad"
    if record.event == "decision":
        tone = {"done": "good", "hold": "bad"}.get(record.text("decision"), "plain")
        return f"decided: {record.text('decision')} ({record.text('reason')})", tone
    if record.event == "requeue":
        accepted = record.text("result") == "accepted"
        detail = record.text("detail")
        said = "the job is back in the queue" if accepted else f"requeue {record.text('result')}: {detail}"
        return said, "good" if accepted else "bad"
    return "", ""
