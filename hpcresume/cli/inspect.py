"""`hpcresume inspect`: what a generation holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import Column, echo_json, echo_table, json_option, on_terminal, printable
from hpcresume.observe.figures import size

if TYPE_CHECKING:
    from hpcresume.ops.contents import Contents

__all__ = ["command"]

_TENSORS = (
    Column("TENSOR", style="bold", fold=True),
    Column("DTYPE"),
    Column("SHAPE"),
    Column("SCOPE"),
    Column("BYTES", right=True),
    Column("DIGEST", style="dim"),
)
_VALUES = (Column("VALUE", style="bold", fold=True), Column("RANK", right=True), Column("IS", fold=True))
LONGEST = 60
"""Characters of a plain value that are shown; --json has all of it."""


@click.command(
    "inspect",
    epilog="JSON: run, name, path, step, attempt, parent, created, world_size, bytes, read_back, write_path, root, "
    "run_id, format_version, environment, skipped[name, reason], tensors[name, dtype, shape, scope, bytes, digest, "
    "file, offset], values[path, rank, value]. rank is null where all ranks share the value.",
)
@click.argument("path", type=click.Path(readable=False), metavar="GENERATION")
@json_option
def command(path: str, as_json: bool) -> None:
    """Show what a generation holds: its facts, its tensors, its plain values.

    GENERATION is RUN/generations/NAME, or a run's directory, which means its newest generation. The manifest
    is compared with its own digest; the tensors' bytes are not read: `hpcresume verify` does that.
    """
    from hpcresume.ops import contents
    from hpcresume.ops.targets import resolve

    found = contents.read_contents(resolve(path))
    if as_json:
        echo_json(contents.as_json(found))
    else:
        _show(found)


def _show(found: Contents) -> None:
    for name, value in _facts(found):
        click.echo(f"{name + ':':<13} {value}")
    click.echo()
    rows = [
        [t.name, t.dtype, "×".join(map(str, t.shape)) or "scalar", t.scope, str(t.nbytes), _digest(t.digest)]
        for t in found.tensors
    ]
    if rows:
        echo_table(_TENSORS, rows, title=f"{len(rows)} tensors")
    values = [[v.path, "all" if v.rank is None else str(v.rank), _short(v.value)] for v in found.values]
    if values:
        click.echo()
        echo_table(_VALUES, values, title=f"{len(values)} plain values")


def _facts(found: Contents) -> list[tuple[str, str]]:
    generation = found.generation
    return [
        ("generation", str(generation.path)),
        ("step", str(generation.step)),
        ("attempt", str(generation.attempt)),
        ("parent", generation.parent or "none"),
        ("created", generation.created),
        ("world size", str(generation.world_size)),
        ("size", f"{size(generation.nbytes)} ({generation.nbytes} bytes)"),
        ("written by", f"{generation.write_path}, read back: {generation.read_back}"),
        ("root digest", generation.root),
        ("run id", found.run_id),
        ("format", str(found.format_version)),
        ("environment", ", ".join(f"{key} {value}" for key, value in found.environment.items())),
        *(("skipped", printable(f"{each.generation} is damaged: {each.reason}")) for each in found.skipped),
    ]


def _digest(text: str) -> str:
    """In full where a program may read it, its beginning on a terminal."""
    value = text.partition(":")[2]
    return f"{value[:12]}…" if on_terminal() and len(value) > 12 else text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
