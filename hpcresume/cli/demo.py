"""`hpcresume demo`: the main job, end to end, on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcresume.cli.interrupts import clear_away_at_term
from hpcresume.cli.output import Column, echo_json, echo_table, json_option

if TYPE_CHECKING:
    from hpcresume.ops.demo.verdict import Report

__all__ = ["command"]


@click.command(
    "demo",
    epilog="Exit code: 0 only if everything is identical, 1 otherwise. "
    "JSON: identical, attempts[attempt, cause, evidence, start_step, end_step, restored_from, lost_steps, "
    "seconds{save, verify, restore}], samples{seen, duplicated, missed}, generations, skipped[generation, reason, "
    "tensor, offset], seconds, damage, compared{losses, arrays, bytes}, differences[kind, where, ours, reference], "
    "steps, ranks, nodes, plot, kept.",
)
@click.option("--ranks", default=4, show_default=True, help="MPI ranks.")
@click.option("--nodes", default=2, show_default=True, help="Emulated nodes that share the ranks.")
@click.option("--steps", default=80, show_default=True, help="Steps of the training; more take longer.")
@click.option("--seed", default=0, show_default=True, help="Of the training, and of the place to damage.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR",
              help="Keep run, traces, logs and plot in DIR, which must not exist or be empty.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where to write the plot.  [default: ./hpcresume-demo.png, or into --keep]")  # fmt: skip
@json_option
def command(ranks: int, nodes: int, steps: int, seed: int, keep: Path | None, plot: Path | None, as_json: bool) -> int:
    """Train a small GPT here, warn it, kill it, damage its newest checkpoint, and prove that nothing was lost.

    A byte-level GPT learns Python's own standard library on four ranks of two emulated nodes. It is warned by
    SIGUSR1 and has to go; later one rank is killed with no warning; then one bit of the newest generation is
    flipped on disk. Each time the job comes back by itself. At last the same training runs without
    interruption as a plain loop, and every loss, weight, random state and sample is compared, bit for bit.
    No Slurm is needed. Takes about a minute on two cores.
    """
    from hpcresume.ops.demo.board import Board
    from hpcresume.ops.demo.options import DemoOptions, check

    options = DemoOptions(ranks=ranks, nodes=nodes, steps=steps, seed=seed, keep=keep, plot=plot)
    check(options)
    from hpcresume.ops.demo.scenario import run_demo
    from hpcresume.ops.demo.views import choose_view

    clear_away_at_term()
    report = run_demo(options, choose_view(Board(steps), time.time(), as_json=as_json))
    _show(report, as_json)
    return 0 if report.identical else 1


def _show(report: Report, as_json: bool) -> None:
    from hpcresume.ops.demo import verdict

    if as_json:
        echo_json(verdict.as_json(report))
        return
    left = {"CAUSE", "STEPS", "FROM GENERATION"}
    click.echo()
    echo_table([Column(title, right=title not in left) for title in verdict.TABLE], verdict.rows(report))
    click.echo()
    for line in verdict.summary(report):
        click.echo(line)
    colour = "green" if report.identical else "red"
    click.secho(verdict.headline(report), fg=colour, bold=True)
