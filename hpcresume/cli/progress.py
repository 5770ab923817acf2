"""The one place that draws progress of a long read: a bar on a terminal, a line now and then in a log.

Drawn on stderr, so that stdout holds the result only.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import click

from hpcresume.cli.output import on_terminal
from hpcresume.observe.figures import size
from hpcresume.ops.verification import Progress

__all__ = ["byte_progress"]

LOG_EVERY = 10.0
"""Seconds between two lines in a log."""


@contextlib.contextmanager
def byte_progress(total: int, *, quiet: bool = False) -> Iterator[Progress]:
    """Give a callable that shows how far `total` bytes over several generations have come."""
    if quiet:
        yield _nothing
    elif on_terminal(sys.stderr):
        with _bar(total) as show:
            yield show
    else:
        yield _PlainLines(total)


def _nothing(_name: str, _done: int, _of: int) -> None:
    """Show nothing."""


class _Sum:
    """Bytes done over all generations, from the bytes done of each."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}

    def update(self, name: str, done: int) -> int:
        self._of[name] = done
        return sum(self._of.values())


class _PlainLines:
    def __init__(self, total: int) -> None:
        self._total = total
        self._sum = _Sum()
        self._next = time.monotonic() + LOG_EVERY

    def __call__(self, name: str, done: int, _of: int) -> None:
        overall = self._sum.update(name, done)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_EVERY
            click.echo(f"verified {size(overall)} of {size(self._total)}, now {name}", err=True)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Progress]:
    from rich import progress as drawn
    from rich.console import Console

    columns = [
        drawn.TextColumn("{task.description}"),
        drawn.BarColumn(),
        drawn.DownloadColumn(binary_units=True),
        drawn.TransferSpeedColumn(),
        drawn.TimeRemainingColumn(),
    ]
    sums = _Sum()
    with drawn.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=total)

        def show(name: str, done: int, _of: int) -> None:
            bar.update(task, completed=sums.update(name, done), description=name)

        yield show
