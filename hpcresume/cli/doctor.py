"""`hpcresume doctor`: what this place means for a run, check by check."""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import Column, echo_json, echo_table, json_option, on_terminal, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hpcresume.ops.doctor.finding import Finding
    from hpcresume.ops.doctor.probe import Probed

__all__ = ["command"]

EPILOG = """\b
Exit codes
   0  nothing to be warned of; what could not be told counts as neither good nor bad
   1  something is bad: it will be lost, or will not work
   3  nothing is bad, and there is something to be warned of
  69  --probe: Slurm refuses the job, or cannot be asked
  73  the run cannot be read

JSON: path, run (null for a folder), findings[area, check, verdict, what, try]; verdict is ok, warn, bad or unknown.
With --probe also probe: job_ids[], signals[event, launcher, reached{actor: all, some, none or null}, launcher_survived,
seconds_early], signal_line, wrapper, lead; null where nothing is known.
"""

_LOOKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("bad", "red"), "unknown": ("cannot tell", "cyan")}
_REACHED = {"all": "USR1", "some": "some", "none": "-", None: ""}
_TITLES = {"slurm": "Slurm", "time": "time", "environment": "environment", "mpi": "MPI", "folder": "the folder",
           "nodes": "the nodes", "signals": "signals"}  # fmt: skip


class _Doctor(click.Command):
    """`--probe` alone is `--probe=quick`: it must not swallow the path behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give --probe its value."""
        return super().parse_args(ctx, ["--probe=quick" if word == "--probe" else word for word in args])


@click.command("doctor", cls=_Doctor, epilog=EPILOG)
@click.argument("path", required=False, type=click.Path(readable=False), metavar="[RUN|FOLDER]")
@click.option("--partition", metavar="NAME", help="Look at this one. Default: the run's own, else the default one.")
@click.option("--write", default="64MiB", show_default=True, metavar="SIZE",
              help="How much may be written to measure the filesystem (about 5 s); 0 writes nothing.")  # fmt: skip
@click.option("--probe", type=click.Choice(["quick", "full"]), metavar="[=full]",
              help="Submit a job of half a minute that shows which signal reaches which process, and how the nodes "
              "are; =full also waits for the warnings before a time limit (some minutes).")  # fmt: skip
@click.option("--nodes", type=click.IntRange(min=1), default=2, show_default=True, help="Of the probe.")
@click.option("--account", metavar="NAME", help="Of the probe.")
@click.option("--option", "options", multiple=True, metavar="WORD", help="A further option for the probe's sbatch.")
@click.option("--wait", default="30min", show_default=True, metavar="TIME", help="How long to wait for the probe.")
@json_option
def command(path: str | None, partition: str | None, write: str, probe: str | None, nodes: int,
            account: str | None, options: tuple[str, ...], wait: str, as_json: bool) -> int:  # fmt: skip
    """Look whether this place is fit for a run: Slurm, time, MPI, the filesystem, the nodes.

    RUN: what was measured there is held against grace and lead. FOLDER: where runs shall lie. Default: this folder.
    Inside a job all of its nodes are looked at; from a login node --probe does it. Nothing is changed.
    """
    from hpcresume.config.durations import parse_duration
    from hpcresume.ops.doctor.examination import Bounds, examine
    from hpcresume.ops.doctor.finding import exit_code
    from hpcresume.ops.doctor.probe import PROBE_ANSWERS, Asked
    from hpcresume.ops.doctor.probe import as_json as probe_as_json
    from hpcresume.ops.doctor.probe import probe as submit_probe
    from hpcresume.ops.doctor.subject import the_subject

    nbytes, seconds = _bytes(write), parse_duration(wait)
    if probe is not None and "SLURM_JOB_ID" in os.environ:
        raise click.UsageError("this is a job: doctor alone looks at its nodes; --probe submits one from a login node")
    subject = the_subject(path, partition)
    asked = None
    if probe is not None:
        asked = Asked(nodes, probe == "full", subject.partition, account, options, seconds)
    say, say_of_probe = _progress(as_json), _progress(as_json, in_logs=True)
    probed = None
    with contextlib.ExitStack() as stack:
        # It waits in the queue while everything else is looked at.
        pending = stack.enter_context(submit_probe(subject, asked, say_of_probe)) if asked is not None else None
        findings = examine(subject, Bounds(nbytes=nbytes), say)
        if pending is not None:
            findings = (each for each in findings if (each.area, each.name) not in PROBE_ANSWERS)
        found = _shown(findings, as_json)
        if pending is not None:
            probed = pending.result(say_of_probe)
            if not as_json:
                click.echo(f"from the nodes (job {', '.join(probed.job_ids)})")
            found += _shown(probed.findings, as_json)
            if not as_json:
                _show_map(probed, shlex.quote(str(subject.run.root)) if subject.run is not None else "RUN")
    if as_json:
        from hpcresume.ops.doctor.finding import as_json as json_of

        run = str(subject.run.root) if subject.run is not None else None
        more = {} if probed is None else {"probe": probe_as_json(probed)}
        echo_json({"path": str(subject.path), "run": run, "findings": [json_of(each) for each in found], **more})
    else:
        _sum_up(found)
    return exit_code(found)


def _bytes(text: str) -> int:
    """`64MiB`, `1GiB`, `100000`, `0`."""
    import re

    match = re.fullmatch(r"([0-9]{1,12})\s*(|B|KiB|MiB|GiB|k|M|G)", text.strip(), re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{text!r} is no size: 64MiB, say, or 0", param_hint="--write")
    factor = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[match[2].lower()[:1]]
    return int(match[1]) * factor


def _progress(as_json: bool, *, in_logs: bool = False) -> Callable[[str], None]:
    """What takes a while is said on standard error, where the result is not; what takes minutes, in a log as well."""
    import sys

    if as_json or not (in_logs or on_terminal(sys.stderr)):
        return lambda _text: None
    if not on_terminal(sys.stderr):
        return lambda text: click.echo(printable(text), err=True)
    return lambda text: click.echo(click.style(f"… {printable(text)}", dim=True), err=True)


def _shown(findings: Iterable[Finding], as_json: bool) -> list[Finding]:
    """Each finding is shown as soon as it is there."""
    kept: list[Finding] = []
    for finding in findings:
        if not as_json:
            if not kept or kept[-1].area != finding.area:
                title = _TITLES.get(finding.area, finding.area)
                click.echo(click.style(title, bold=True) if on_terminal() else title)
            _show(finding)
        kept.append(finding)
    return kept


def _show(finding: Finding) -> None:
    label, colour = _LOOKS[finding.verdict]
    mark = click.style(f"{label:<11}", fg=colour) if on_terminal() else f"{label:<11}"
    click.echo(f"  {mark}  {finding.name}: {printable(finding.what)}".rstrip())
    if finding.hint and finding.verdict != "ok":
        click.echo(f"               try: {printable(finding.hint)}")


def _sum_up(found: list[Finding]) -> None:
    counts = {label: sum(each.verdict == verdict for each in found) for verdict, (label, _) in _LOOKS.items()}
    parts = [f"{count} {label}" for label, count in counts.items() if count]
    click.echo(f"{len(found)} checks: {', '.join(parts)}")


def _show_map(found: Probed, run: str) -> None:
    from hpcresume.ops.doctor.signal_map import ACTORS

    rows = [[row.event, row.launcher, *(_REACHED[row.reached[actor]] for actor in ACTORS),
             "alive" if row.survived else "dead"] for row in found.rows]  # fmt: skip
    columns = [Column(title) for title in ("USR1 BY", "RANKS BY", *(actor.upper() for actor in ACTORS), "LAUNCHER")]
    if rows:
        click.echo()
        echo_table(columns, rows)
    if found.advice.signal_line:
        click.echo("\nfor the batch script:")
        click.echo(f"  {found.advice.signal_line}")
        click.echo("  trap '' USR1")
        click.echo(printable(f"  {found.advice.wrapper.replace('--run=RUN', f'--run={run}')}"))
