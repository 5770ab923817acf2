"""`hpcresume verify`: every byte against its digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import echo_json, json_option, printable
from hpcresume.observe.figures import size

if TYPE_CHECKING:
    from hpcresume.model import VerifyReport

__all__ = ["command"]


@click.command(
    "verify",
    epilog="Exit code: 0 only if everything verifies, 74 otherwise. "
    "JSON: run, ok, generations[name, ok, units, bytes, damage[reason, tensor, offset]]. "
    'tensor is "" for metadata, offset is the first byte of the bad unit in its file, -1 when unknown.',
)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@json_option
def command(path: str, as_json: bool) -> int:
    """Read every byte of a run's generations and compare it with its digest.

    RUN is a run's directory, or one generation in it (RUN/generations/NAME). Nothing is changed.
    """
    from hpcresume.cli.progress import byte_progress
    from hpcresume.ops import verification
    from hpcresume.ops.targets import resolve

    target = resolve(path)
    with byte_progress(verification.size_on_disk(target), quiet=as_json) as progress:
        reports = verification.verify_all(target, progress)
    if as_json:
        echo_json(verification.as_json(target, reports))
    else:
        _show(reports)
    return 0 if all(report.ok for report in reports) else verification.EXIT_DAMAGED


def _show(reports: list[VerifyReport]) -> None:
    for report in reports:
        if report.ok:
            click.echo(f"{report.generation}  ok       {report.units} units, {size(report.nbytes)}")
        for damage in report.damage:
            place = f" at byte {damage.offset}" if damage.offset >= 0 else ""
            tensor = f" in {damage.tensor}" if damage.tensor not in damage.reason else ""
            click.echo(printable(f"{report.generation}  DAMAGED  {damage.reason}{tensor}{place}"))
    bad = sum(not report.ok for report in reports)
    click.echo(f"{len(reports) - bad} of {len(reports)} generations verify" + (f", {bad} damaged" if bad else ""))
