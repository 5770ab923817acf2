"""How `hpcresume watch` looks on a terminal: pure, from a look at the run to a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpcresume.cli.output import printable
from hpcresume.observe.figures import age, span
from hpcresume.observe.instants import date_and_time

if TYPE_CHECKING:
    from hpcresume.observe.narrate import Line
    from hpcresume.ops.watching import Look

__all__ = ["picture"]

_STYLES = {"running": "bold green", "done": "bold green", "pending": "bold yellow", "requeued": "bold yellow",
           "held": "bold red", "ended": "bold red", "unknown": "bold yellow", "unreadable": "bold red"}  # fmt: skip
_TONES = {"plain": "", "good": "green", "warn": "yellow", "bad": "bold red"}
_MOST_VALUES = 4
"""Logged values shown in the head."""


def picture(look: Look, lines: Sequence[Line], width: int, height: int, now: float) -> RenderableType:
    """The picture, at most `height` lines of `width` characters; the newest of `lines` at the bottom."""
    rows = max(3, min(14, height - 10))
    body = Group(
        _state(look), Text(), _numbers(look, now), _bar(look, max(20, width - 4)), Text(), _events(lines, rows)
    )
    return Panel(body, title=printable(look.row.name), width=width)


def _state(look: Look) -> RenderableType:
    state = look.row.state
    text = Text(overflow="fold")
    text.append(state.state, style=_STYLES.get(state.state, "bold"))
    text.append(f"  {printable(state.doing)}")
    if state.next != "nothing to do":
        text.append(f"\n→ {printable(state.next)}", style="bold")
    if look.slurm_error is not None:
        text.append(f"\n{printable(look.slurm_error.what)[:200]}", style="yellow")
    return text


def _numbers(look: Look, now: float) -> RenderableType:
    seen, newest = look.row.seen, look.row.seen.newest
    grid = Table.grid(padding=(0, 3))
    cells = []
    if newest is not None:
        cells.append(f"attempt {newest.attempt}")
    if seen.generation is not None:
        when = f", {age(now - seen.committed_at)} ago" if seen.committed_at is not None else ""
        cells.append(f"saved {seen.generation}{when}")
    cells.append(f"lost {seen.lost} steps" if seen.lost else "nothing lost")
    if look.metrics is not None:
        values = list(look.metrics.values.items())[:_MOST_VALUES]
        cells += [f"{printable(name)} {value:.5g}" for name, value in values]
    grid.add_row(*(Text(cell) for cell in cells))
    return grid


def _bar(look: Look, width: int) -> RenderableType:
    newest = look.row.seen.newest
    if newest is None:
        return Text("no attempt yet", style="dim")
    pace = f"  {look.pace:.3g} steps/s" if look.pace and look.row.state.state == "running" else ""
    left = f"  {span(look.seconds_left)} to go" if look.seconds_left else ""
    if newest.total is None:
        return Text(f"step {newest.step}{pace}")
    text = f"step {newest.step}/{newest.total}{pace}{left}"
    row = Table.grid(padding=(0, 1))
    row.add_row(Text(text), ProgressBar(newest.total, newest.step, width=max(10, width - len(text) - 2)))
    return row


def _events(lines: Sequence[Line], rows: int) -> RenderableType:
    text = Text(no_wrap=True, overflow="ellipsis")
    shown = list(lines)[-rows:]
    for number, line in enumerate(shown):
        text.append(f"{date_and_time(line.t)[11:]}  ", style="dim")
        text.append(printable(line.text), style=_TONES[line.tone])
        if number < len(shown) - 1:
            text.append("\n")
    return text
