"""The demo on a terminal: loss curve, step bar and events, redrawn in place. rich is imported here only."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpcresume.ops.demo.board import REFERENCE, Board, Mark
from hpcresume.ops.demo.chart import Dot, chart

if TYPE_CHECKING:
    from hpcresume.observe.follow import Update
    from hpcresume.observe.narrate import Line

__all__ = ["LiveView", "render"]

_COLOURS = ("blue", "yellow", "green", "magenta", "cyan", "red")
_TONES = {"plain": "", "good": "green", "warn": "yellow", "bad": "bold red"}
_CHART_ROWS = 9
_EVENT_ROWS = 9


def _style(mark: Mark) -> str:
    if mark.attempt == REFERENCE:
        return "bold white"
    colour = _COLOURS[(mark.attempt - 1) % len(_COLOURS)]
    return f"dim {colour}" if mark.lost else colour


class LiveView:
    """Shows a board that changes; see `views.View`."""

    def __init__(self, board: Board, began: float, out: TextIO) -> None:
        self._board = board
        self._began = began
        self._lock = threading.Lock()
        self._console = Console(file=out)
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=8)

    def open(self) -> None:
        """Begin to show."""
        self._live.start()

    def close(self) -> None:
        """Stop showing; the last picture stays."""
        self._live.stop()

    def update(self, update: Update) -> None:
        """The interrupted run has written something."""
        with self._lock:
            self._board.update(update)

    def note(self, line: Line) -> None:
        """The demo itself has something to say."""
        with self._lock:
            self._board.note(line)

    def reference(self, step: int, loss: float) -> None:
        """The uninterrupted training has finished `step` steps."""
        with self._lock:
            self._board.reference(step, loss)

    def _render(self) -> RenderableType:
        with self._lock:
            return render(self._board, self._began, time.time(), self._console.width, self._console.height)


def render(board: Board, began: float, now: float, width: int, height: int) -> RenderableType:
    """The picture of a board, at most `height` lines of `width` characters."""
    spare = max(0, height - _CHART_ROWS - _EVENT_ROWS - 8)
    rows = _CHART_ROWS + min(spare, 6)
    events = max(3, min(_EVENT_ROWS + spare, height - rows - 8))
    inner = max(20, width - 4)
    return Panel(
        Group(_head(board, now - began), Text(), _curve(board, inner, rows), _bar(board, inner), Text(),
              _events(board, began, events)),
        title="hpcresume demo",
        subtitle="a colour an attempt · dim: lost, done again · white: the reference",
        width=width,
    )  # fmt: skip


def _head(board: Board, seconds: float) -> RenderableType:
    who = "reference, never interrupted" if board.attempt == REFERENCE else f"attempt {board.attempt}"
    loss = "" if board.loss is None else f"loss {board.loss:.4f}"
    head = Table.grid(expand=True)
    head.add_column(ratio=1)
    head.add_column(ratio=1, justify="center")
    head.add_column(ratio=1, justify="right")
    head.add_row(Text(who, style="bold"), Text(loss), Text(f"{seconds:.0f} s", style="dim"))
    return head


def _curve(board: Board, width: int, rows: int) -> RenderableType:
    losses = [mark.loss for mark in board.marks]
    high, low = (max(losses), min(losses)) if losses else (0.0, 0.0)
    labels = [f"{high:5.2f} " if row == 0 else f"{low:5.2f} " if row == rows - 1 else " " * 6 for row in range(rows)]
    dots = _dots(board, 2 * width)
    text = Text(no_wrap=True)
    lines = chart(dots, width=max(10, width - 6), height=rows, x_max=board.steps)
    for number, (label, cells) in enumerate(zip(labels, lines, strict=True)):
        text.append(label if losses else " " * 6, style="dim")
        for character, style in cells:
            text.append(character, style=style)
        if number < rows - 1:
            text.append("\n")
    return text


def _dots(board: Board, columns: int) -> list[Dot]:
    """Every loss, and dots between neighbours of one attempt, so that the eye sees a line; lost ones below."""
    drawn = sorted(board.marks, key=lambda mark: not mark.lost)
    between = max(1, columns // board.steps)
    dots = []
    for before, mark in itertools.pairwise([None, *drawn]):
        assert mark is not None, "only the first is None"
        joined = before is not None and before.attempt == mark.attempt and before.step + 1 == mark.step
        start = before if joined and before is not None else mark
        for part in range(1, between + 1):
            share = part / between
            loss = start.loss + (mark.loss - start.loss) * share
            dots.append(Dot(start.step + (mark.step - start.step) * share, loss, _style(mark)))
    return dots


def _bar(board: Board, width: int) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    text = f"step {board.step}/{board.steps}"
    row.add_row(Text(text), ProgressBar(board.steps, board.step, width=max(10, width - len(text) - 2)))
    return row


def _events(board: Board, began: float, rows: int) -> RenderableType:
    text = Text(no_wrap=True, overflow="ellipsis")
    shown = list(board.lines)[-rows:]
    for number in range(rows):
        if number < len(shown):
            line = shown[number]
            text.append(f"{line.t - began:6.1f}s  ", style="dim")
            text.append(line.text, style=_TONES[line.tone])
        if number < rows - 1:
            text.append("\n")
    return text
