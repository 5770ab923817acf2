"""`hpcresume why`: why each attempt ended, with the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import echo_json, json_option, on_terminal, printable

if TYPE_CHECKING:
    from hpcresume.observe.story import Chapter
    from hpcresume.ops.explanation import Explanation

__all__ = ["command"]

EPILOG = """\b
Causes: done, preempted, walltime, node-failure, out-of-memory, crash, operator, storage, unknown.

\b
Exit codes
   0  told
  69  Slurm could not be asked what happens next; the story is told all the same
  73  there is no run, or it cannot be read
  78  there is no such attempt

JSON: run, state, doing, next, slurm_error, lost_steps, starts_without_attempt[], by_hand[], attempts[attempt, cause,
began, ended, job_id, start, generations, lost_steps, decision, story[], evidence[]]; times are seconds since the
epoch, what is not known is null.
"""


@click.command("why", epilog=EPILOG)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@click.option("--attempt", type=click.IntRange(min=1), help="This one alone. Default: all of them.")
@json_option
def command(path: str, attempt: int | None, as_json: bool) -> int:
    """Tell why each attempt of RUN ended.

    A paragraph an attempt: where it began, what it saved, what told it to stop, what ended it, what was decided, what
    was lost. Below it the evidence, line by line. The last line says what happens next.
    """
    from hpcresume.ops.explanation import as_json as json_of
    from hpcresume.ops.explanation import explain

    found = explain(path, attempt)
    if as_json:
        echo_json(json_of(found))
    else:
        _show(found)
    if found.slurm_error is None:
        return 0
    click.echo(f"error: {printable(found.slurm_error.what)}", err=True)
    return found.slurm_error.exit_code


def _show(found: Explanation) -> None:
    for chapter in found.chapters:
        _show_chapter(chapter, found.state.state)
    for line in found.barren:
        click.echo(printable(f"no attempt: {line}"))
    for line in found.by_hand:
        click.echo(printable(f"by hand: {line}"))
    click.echo(printable(f"now:  {found.state.state}: {found.state.doing}"))
    click.echo(printable(f"next: {found.state.next}"))


def _show_chapter(chapter: Chapter, state: str) -> None:
    cause = state if chapter.cause is None else chapter.cause.value
    head = f"attempt {chapter.attempt}: {cause}"
    click.echo(click.style(head, bold=True) if on_terminal() else head)
    text = " ".join(chapter.sentences)
    for line in click.wrap_text(printable(text), width=_width(), initial_indent="  ",
                                subsequent_indent="  ").splitlines():  # fmt: skip
        click.echo(line)
    for line in chapter.evidence:
        click.echo(printable(f"  - {line}"))
    click.echo()


def _width() -> int:
    import shutil

    return min(110, shutil.get_terminal_size((110, 24)).columns)
