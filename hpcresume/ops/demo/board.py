"""What the demo shows at any moment: fed by the run's files, drawn by a view. Holds no clock and draws nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from hpcresume.observe.follow import Update
from hpcresume.observe.ledger_reader import MetricRecord
from hpcresume.observe.narrate import Line, narrate

__all__ = ["REFERENCE", "Board", "Mark"]

REFERENCE = 0
"""The number under which the uninterrupted training's losses are kept, beside those of attempts 1, 2, …"""


@dataclass(frozen=True)
class Mark:
    """A loss that was logged: by which attempt, after which step, and whether its work was lost since."""

    attempt: int
    step: int
    loss: float
    lost: bool = False


@dataclass
class Board:
    """The state of the demo as seen so far, of a training of `steps` steps."""

    steps: int
    attempt: int = 1
    step: int = 0
    loss: float | None = None
    marks: list[Mark] = field(default_factory=list)
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=100))

    def update(self, update: Update) -> list[Line]:
        """Take in one update of the interrupted run; return its lines."""
        record = update.record
        self.attempt = max(self.attempt, update.attempt)
        if isinstance(record, MetricRecord):
            if "loss" in record.values:
                self._mark(Mark(update.attempt, record.step, record.values["loss"]))
            return []
        if update.source == "session" and record.event in ("restored", "fresh-start"):
            self._begin(update.attempt, int(record.number("step")))
        lines = narrate(update)
        self.lines.extend(lines)
        return lines

    def note(self, line: Line) -> None:
        """Take in a line that comes from the demo itself."""
        self.lines.append(line)

    def reference(self, step: int, loss: float) -> None:
        """The uninterrupted training has finished `step` steps."""
        self.attempt = REFERENCE
        self._mark(Mark(REFERENCE, step, loss))

    def _mark(self, mark: Mark) -> None:
        self.marks.append(mark)
        self.step, self.loss = mark.step, mark.loss

    def _begin(self, attempt: int, start: int) -> None:
        """What earlier attempts did past the step that this one starts from is lost."""
        self.step = start
        self.marks = [
            replace(mark, lost=True) if mark.attempt < attempt and mark.step > start else mark for mark in self.marks
        ]
