"""`hpcresume why`: why each attempt ended, with the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcresume.cli.errors import complain
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

Of a chain of stages every stage is told; JSON: run, stages[stage, and the keys below].

JSON: run, state, doing, next, slurm_error, lost_steps, starts_without_attempt[], by_hand[], made_from[],
attempts[attempt, cause, began, ended, job_id, start, generations, lost_steps, decision, story[], evidence[]]; times
are seconds since the epoch, what is not known is null.
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
    from hpcresume.ops.chain_record import stages_at
    from hpcresume.ops.explanation import as_json as json_of
    from hpcresume.ops.explanation import explain

    stages = stages_at(path)
    if stages and attempt is not None:
        raise click.UsageError(f"--attempt is of one run: name the stage, such as {stages[0]}")
    runs: list[Path | str] = [*stages] or [path]
    stories = [explain(each, attempt) for each in runs]
    if as_json and stages:
        echo_json({"run": str(path), "stages": [{"stage": each.run.name, **json_of(each)} for each in stories]})
    elif as_json:
        echo_json(json_of(stories[0]))
    for index, found in enumerate(stories if not as_json else ()):
        if stages:
            click.echo(click.style(f"{chr(10) if index else ''}stage {printable(found.run.name)}", bold=on_terminal()))
        _show(found)
    error = next((each.slurm_error for each in stories if each.slurm_error is not None), None)
    return 0 if error is None else complain(error)


def _show(found: Explanation) -> None:
    for chapter in found.chapters:
        _show_chapter(chapter, found.state.state)
    for line in found.barren:
        click.echo(printable(f"no attempt: {line}"))
    if found.made_from:
        click.echo(printable(f"made from {', '.join(found.made_from)}"))
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
