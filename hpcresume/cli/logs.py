"""`hpcresume logs`: the logs of a run, stitched over its attempts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import echo_json, json_option, on_terminal, printable

if TYPE_CHECKING:
    from hpcresume.io.paths import RunPaths
    from hpcresume.observe.logs import Piece
    from hpcresume.ops.log_stitching import Wanted

__all__ = ["command"]

EPILOG = """\b
The log of a Slurm job is where its batch script sent it; supervisor and session record that file, and where in it
each attempt begins. With submitit every rank has a file of its own. In one log for all ranks --rank takes the
lines that are marked with it: srun --label, mpiexec --tag-output or -l, torch's [rank0]:.

\b
Exit codes
   0  shown
  73  there is no run, or no log is known
  78  there is no such attempt, or the lines do not say which rank they are from

Of a chain of stages the logs of all are shown, in their order; JSON: run, stages[stage, and the keys below].

JSON: run, parts[attempt, path, note, lines[]]; attempt is null for a job that has begun none.
"""

FOLLOWED = 10
"""Lines shown before what is new, as tail does."""

_STEERS = re.compile(r"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Colours pass; everything else that a terminal would obey is written as an escape."""


@click.command("logs", epilog=EPILOG)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@click.option("--attempt", type=click.IntRange(min=1), help="This one alone. Default: all of them.")
@click.option("--rank", type=click.IntRange(min=0), help="Lines of this rank alone.")
@click.option("-n", "last", type=click.IntRange(min=0), metavar="LINES",
              help=f"The last LINES alone. Default: all; {FOLLOWED} with --follow.")  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is new, until the run is done or held.")
@json_option
def command(path: str, attempt: int | None, rank: int | None, last: int | None, follow: bool, as_json: bool) -> int:
    """Show the logs of RUN, a mark before each attempt."""
    from hpcresume.ops import log_stitching
    from hpcresume.ops.chain_record import stages_at
    from hpcresume.ops.the_run import the_run

    if follow and as_json:
        raise click.UsageError("--follow has no end, one JSON object has")
    stages = stages_at(path)
    if stages:
        return _chain(path, stages, log_stitching.Wanted(attempt, rank, last), follow=follow, as_json=as_json)
    run = the_run(path)
    given = log_stitching.Wanted(attempt, rank, FOLLOWED if follow and last is None else last)
    shown = _Shown(run)
    if follow:
        log_stitching.follow(run, given, shown.show)
        return 0
    found = log_stitching.find_pieces(run, given)
    if as_json:
        echo_json(log_stitching.as_json(run, found, given))
        return 0
    for piece, lines in log_stitching.stitched(run, found, given):
        shown.show(piece, lines)
    return 0


def _chain(path: str, stages: list[Path], given: Wanted, *, follow: bool, as_json: bool) -> int:
    """The logs of all stages, in their order; those that have none yet are passed over."""
    from hpcresume.errors import RunDirectoryError
    from hpcresume.ops import log_stitching
    from hpcresume.ops.the_run import the_run

    if follow:
        raise click.UsageError(f"--follow is for one run: name the stage, such as {stages[-1]}")
    told, shown = [], 0
    for each in stages:
        run = the_run(each)
        try:
            found = log_stitching.find_pieces(run, given)
        except RunDirectoryError:  # it has not begun
            continue
        if as_json:
            told.append({"stage": each.name, **log_stitching.as_json(run, found, given)})
            continue
        shown += 1
        click.echo(click.style(f"stage {each.name}", bold=on_terminal()))
        out = _Shown(run)
        for piece, lines in log_stitching.stitched(run, found, given):
            out.show(piece, lines)
    if as_json:
        echo_json({"run": path, "stages": told})
    elif not shown:
        raise RunDirectoryError("no stage has a log yet", where=path, hint=f"hpcresume status {path}")
    return 0


class _Shown:
    """Prints lines, and a mark wherever another part begins."""

    def __init__(self, run: RunPaths) -> None:
        self._run = run
        self._last: tuple[int, Path] | None = None
        self._terminal = on_terminal()

    def show(self, piece: Piece, lines: Iterable[bytes]) -> None:
        """Print lines of a part."""
        self._mark(piece)
        out = sys.stdout.buffer
        whole = True
        for line in lines:
            whole = line.endswith(b"\n")
            if self._terminal:
                click.echo(_STEERS.sub(_escape, line.decode(errors="replace")), nl=False)
            else:
                out.write(line)
        if not whole:
            click.echo()
        out.flush()

    def _mark(self, piece: Piece) -> None:
        from hpcresume.ops.log_stitching import mark

        if self._last == (piece.attempt, piece.path):
            return
        self._last = (piece.attempt, piece.path)
        text = printable(mark(self._run, piece))
        click.echo(click.style(text, bold=True) if self._terminal else text)
        if piece.note:
            click.echo(printable(f"    {piece.note}"))


def _escape(match: re.Match[str]) -> str:
    return str(match[1] or ascii(match[0])[1:-1])
