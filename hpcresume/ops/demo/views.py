"""How the demo shows itself while it runs: plain lines in a log; the view for a terminal is in `live`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, TextIO

from hpcresume.observe.follow import Update
from hpcresume.observe.narrate import Line
from hpcresume.ops.demo.board import REFERENCE, Board

__all__ = ["PlainView", "View", "Watching", "choose_view"]


class View(Protocol):
    """Shows what happens; may be called from any thread."""

    def open(self) -> None:
        """Begin to show."""

    def close(self) -> None:
        """Stop showing; what stands on the screen stays."""

    def update(self, update: Update) -> None:
        """The interrupted run has written something."""

    def note(self, line: Line) -> None:
        """The demo itself has something to say."""

    def reference(self, step: int, loss: float) -> None:
        """The uninterrupted training has finished `step` steps."""


@dataclass
class PlainView:
    """Lines, each with the seconds since the start and a step's loss now and then."""

    board: Board
    began: float
    out: TextIO = field(default_factory=lambda: sys.stdout)
    every: int = 10
    _said: tuple[int, int] = (-1, 0)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        """Begin to show."""

    def close(self) -> None:
        """Stop showing."""

    def update(self, update: Update) -> None:
        """The interrupted run has written something."""
        with self._lock:
            for line in self.board.update(update):
                self._say(line.t, line.text)
            if update.source == "metrics":
                self._say_step(update.t)

    def note(self, line: Line) -> None:
        """The demo itself has something to say."""
        with self._lock:
            self.board.note(line)
            self._say(line.t, line.text)

    def reference(self, step: int, loss: float) -> None:
        """The uninterrupted training has finished `step` steps."""
        with self._lock:
            self.board.reference(step, loss)
            self._say_step(time.time())

    def _say_step(self, t: float) -> None:
        now = (self.board.attempt, self.board.step)
        if self.board.loss is None or now == self._said or self.board.step % self.every:
            return
        self._said = now
        who = "reference" if self.board.attempt == REFERENCE else f"attempt {self.board.attempt}"
        self._say(t, f"{who}: step {self.board.step}/{self.board.steps}, loss {self.board.loss:.4f}")

    def _say(self, t: float, text: str) -> None:
        self.out.write(f"{max(0.0, t - self.began):6.1f}s  {text}\n")
        self.out.flush()


def choose_view(board: Board, began: float, *, as_json: bool) -> View:
    """A live view on a terminal, lines otherwise; with --json both go to stderr, since stdout is the object's."""
    out = sys.stderr if as_json else sys.stdout
    if out.isatty():
        from hpcresume.ops.demo.live import LiveView

        return LiveView(board, began, out)
    return PlainView(board, began, out)


class Watching:
    """Looks for news in a thread of its own while the block runs, and once more at its end.

    Raises:
        Exception: at the end of the block, what `look` raised, unless the block itself failed.
    """

    def __init__(self, look: Callable[[], None], every: float = 0.2) -> None:
        self._look = look
        self._every = every
        self._stop = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="hpcresume-demo-watch", daemon=True)

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every):
                self._look()
        except OSError as error:
            self._error = error

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is not None:
            return
        if self._error is not None:
            raise self._error
        self._look()
