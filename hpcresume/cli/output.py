"""How results are printed: a rich table on a terminal, plain columns in a pipe, one JSON object if asked.

Knows nothing of what is printed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, cast

import click

__all__ = [
    "Column",
    "OutputError",
    "checked_output",
    "echo_json",
    "echo_table",
    "json_option",
    "on_terminal",
    "printable",
]

FOLDED = 24
"""Characters to which a column of long words may be folded before a table is given up."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


class OutputError(OSError):
    """Standard output is closed or cannot be written."""


class _Output:
    """A stream that says whose errors they are; everything else of it is as it was."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> _Output:
        """The binary stream below, of the same kind."""
        return _Output(self._stream.buffer)

    def write(self, data: Any) -> Any:
        """As the stream's own, but for an OutputError where it cannot write."""
        with _typed():
            return self._stream.write(data)

    def flush(self) -> None:
        """As the stream's own, but for an OutputError where it cannot write."""
        with _typed():
            self._stream.flush()


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # a reader that has seen enough: click ends without a word
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


@contextlib.contextmanager
def checked_output(*, needed: bool) -> Iterator[None]:
    """What is printed in the block is written, or it is an error.

    Raises:
        OutputError: standard output is closed (found before anything is done) though it is `needed`, or full.
    """
    if sys.stdout is None:
        if needed:
            raise OutputError(errno.EBADF, "standard output is closed")
        yield
        return
    stream = sys.stdout
    try:
        with contextlib.redirect_stdout(cast("TextIO", _Output(stream))):
            yield
            sys.stdout.flush()
    except BrokenPipeError:
        raise SystemExit(1) from None  # as click does when it meets it first
    finally:
        _leave_nothing(stream)


def _leave_nothing(stream: TextIO) -> None:
    """What cannot be written is dropped: the end of the program would try once more, and complain."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers go to the `right`; `style` is rich's, `fold` lets long words break."""

    title: str
    right: bool = False
    style: str = ""
    fold: bool = False


def on_terminal(stream: Any = None) -> bool:
    """Is the output a terminal (stdout unless told otherwise)?"""
    stream = sys.stdout if stream is None else stream
    return bool(stream.isatty())


def echo_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object.

    Raises:
        ValueError: a float in it is not finite.
    """
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def echo_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print rows of text: a table on a terminal, aligned plain columns (never cut) otherwise."""
    cells = [[printable(cell) for cell in row] for row in rows]
    show = _rich_table if on_terminal() else _plain_table
    show(columns, cells, title)


def printable(text: str) -> str:
    """Text with every character that a terminal would obey, or could not show, written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str) -> None:
    titles = [column.title for column in columns]
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(columns))]
    if title:
        click.echo(title)
    for row in [titles, *rows]:
        cells = zip(row, widths, columns, strict=True)
        padded = [cell.rjust(w) if column.right else cell.ljust(w) for cell, w, column in cells]
        click.echo("  ".join(padded).rstrip())


def _rich_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str) -> None:
    """Nothing is ever cut: what does not fit even with its long columns folded is left to the terminal to wrap."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if _least_width(columns, rows) > console.width:
        _plain_table(columns, rows, title)
        return
    table = Table(title=title or None, box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left",
                  title_style="bold", header_style="dim")  # fmt: skip
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            style=column.style or None,
            overflow="fold",
            no_wrap=not column.fold,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _least_width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    widest = [max(len(row[i]) for row in [[c.title for c in columns], *rows]) for i in range(len(columns))]
    least = [min(w, FOLDED) if column.fold else w for column, w in zip(columns, widest, strict=True)]
    return sum(least) + 2 * (len(columns) - 1)
