"""`hpcresume ls`: the generations of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import Column, echo_json, echo_table, json_option, printable
from hpcresume.observe.figures import age, size

if TYPE_CHECKING:
    from hpcresume.ops.listing import Listed

__all__ = ["command"]

_COLUMNS = (
    Column("GENERATION", style="bold"),
    Column("STEP", right=True),
    Column("ATTEMPT", right=True),
    Column("AGE", right=True),
    Column("SIZE", right=True),
    Column("RANKS", right=True),
    Column("READ BACK"),
    Column("MARK"),
)


@click.command(
    "ls",
    epilog="JSON: run, done, warnings, generations[name, step, attempt, mark, reason, created, age_seconds, bytes, "
    "world_size, read_back, write_path, parent, path], ascending by step and attempt. "
    "mark is one of newest, lineage, orphan, damaged; what a damaged manifest cannot tell is null.",
)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@json_option
def command(path: str, as_json: bool) -> None:
    """List the generations of a run.

    RUN is a run's directory, or one generation in it (RUN/generations/NAME). A restore tries the newest one
    first, then the lineage backwards; orphans and damaged ones are never chosen. Of a generation only the manifest
    is read: `hpcresume verify` reads every byte.
    """
    from hpcresume.ops import listing
    from hpcresume.ops.targets import resolve

    target = resolve(path)
    listed = listing.list_generations(target)
    if as_json:
        echo_json(listing.as_json(target, listed))
    elif listed:
        echo_table(_COLUMNS, [_row(each) for each in listed])
        for each in listed:
            if each.reason:
                click.echo(printable(f"{each.name} is {each.mark}: {each.reason}"))
    else:
        click.echo("no generations yet")
    if not as_json:
        for line in listing.unreadable(target):
            click.echo(printable(f"warning: {line}"))


def _row(each: Listed) -> list[str]:
    return [
        each.name,
        str(each.step),
        str(each.attempt),
        "?" if each.age is None else age(each.age),
        "?" if each.nbytes is None else size(each.nbytes),
        "?" if each.world_size is None else str(each.world_size),
        each.read_back or "?",
        each.mark,
    ]
