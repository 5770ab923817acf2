"""`hpcresume emulate shell` and what is typed inside it: a shell with an emulated cluster, its preemptions by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpcresume.model import Event

__all__ = ["DEEDS", "shell"]

PATIENCE = 10.0
"""Seconds that an interrupted command has to end by itself."""


@click.command(
    "shell",
    epilog="Inside: sbatch, srun, scontrol, squeue, sacct, scancel and sinfo; `sbatch -p high …` preempts "
    "jobs of `low`; `hpcresume emulate preempt JOB`, `kill-rank JOB RANK`, `kill-node NODE` do what no command can. "
    "Everything ends with the shell, whose exit code is this command's.",
)
@click.option("-N", "--nodes", type=int, default=4, show_default=True, help="Nodes: n0, n1, …")
@click.option("--cpus", type=int, default=8, show_default=True, help="Processors of each node.")
@click.option("--partition", "partitions", multiple=True, metavar="NAME[,tier=N,grace=TIME,…]",
              help="Partitions instead of low and high, the default one first. Repeatable.")  # fmt: skip
@click.option("--grace", default="10s", show_default=True, metavar="TIME", help="Grace of jobs in low.")
@click.option("--kill-wait", default="5s", show_default=True, metavar="TIME", help="From TERM to KILL.")
@click.option("--requeue-delay", default="1s", show_default=True, metavar="TIME", help="In the queue between attempts.")
@click.option("--no-user-signal", is_flag=True, help="The cluster has no send_user_signal: a preemption sends TERM.")
@click.option("--mpi-default", type=click.Choice(["pmix", "pmi2", "none"]), default="pmix", show_default=True,
              help="What srun takes without --mpi.")  # fmt: skip
@click.option("--slurm", default="24.11", show_default=True, metavar="22.05|24.11", help="Whose rules.")
@click.option("--quiet", is_flag=True, help="Say nothing of what happens to jobs.")
@click.argument("words", nargs=-1, metavar="[-- COMMAND [ARGUMENT]...]", type=click.UNPROCESSED)
def shell(
    nodes: int,
    cpus: int,
    partitions: tuple[str, ...],
    grace: str,
    kill_wait: str,
    requeue_delay: str,
    no_user_signal: bool,
    mpi_default: str,
    slurm: str,
    quiet: bool,
    words: tuple[str, ...],
) -> int:
    """Open $SHELL, or run COMMAND, with a small Slurm-like cluster in it."""
    from hpcresume.config.timetable import parse_seconds
    from hpcresume.emulate.cluster import EmulatedCluster
    from hpcresume.emulate.settings import ClusterSettings, default_partitions, parse_partition

    settings = ClusterSettings(
        nodes=nodes,
        cpus=cpus,
        partitions=tuple(map(parse_partition, partitions)) or default_partitions(parse_seconds(grace, "--grace")),
        kill_wait=parse_seconds(kill_wait, "--kill-wait"),
        requeue_delay=parse_seconds(requeue_delay, "--requeue-delay"),
        user_signal=not no_user_signal,
        mpi=mpi_default,
        slurm=slurm,
    )
    with EmulatedCluster(settings, emit=_ignore if quiet else _say) as cluster:
        if not words:
            _introduce(settings.names, cpus, [p.name for p in settings.partitions])
        code = _run(list(words) or [os.environ.get("SHELL") or "/bin/sh"], cluster.environ)
        left = [job.id for job in cluster.jobs() if not job.over]
    if left:
        click.echo(f"hpcresume emulate: ended with the shell: {', '.join(left)}", err=True)
    return code


def _introduce(names: tuple[str, ...], cpus: int, partitions: list[str]) -> None:
    where = f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
    click.echo(f"An emulated cluster: {where}, {cpus} processors each; partitions {', '.join(partitions)}.", err=True)
    click.echo("Try sinfo, sbatch job.sbatch, squeue, `hpcresume emulate preempt JOB`; exit ends everything.", err=True)


def _run(words: list[str], environ: dict[str, str]) -> int:
    """Run the shell; what is typed at a terminal, Ctrl-C for one, is its own, a TERM or HUP to us ends it."""
    running: list[subprocess.Popen[bytes]] = []

    def end(_number: int, _frame: FrameType | None) -> None:
        for each in running:
            # An interactive shell ignores TERM.
            each.terminate()
            each.send_signal(signal.SIGHUP)

    # Set before the shell begins, so that no key finds the old ones; handlers, since what is ignored stays so in it.
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {signal.SIGTERM: end, signal.SIGHUP: end}
    if sys.stdin.isatty():
        handlers |= {signal.SIGINT: _nothing, signal.SIGQUIT: _nothing}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        running.append(subprocess.Popen(words, env=environ))
    except OSError as error:
        raise click.UsageError(f"{words[0]}: {error.strerror}") from error
    try:
        code = running[0].wait()
    except KeyboardInterrupt:
        # Without a terminal, a Ctrl-C of CI may have reached us alone.
        running[0].terminate()
        try:
            running[0].wait(PATIENCE)
        except subprocess.TimeoutExpired:
            running[0].kill()
            running[0].wait()
        raise
    return code if code >= 0 else 128 - code


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler that lets a signal be the shell's alone."""


def _ignore(_event: Event) -> None:
    """Say nothing."""


def _say(event: Event) -> None:
    from hpcresume.emulate.lines import line

    click.echo(f"hpcresume emulate: job {event.fields['job']}: {line(event)}", err=True)


def _deed(name: str, arguments: tuple[str, ...], text: str) -> click.Command:
    """A command that asks the cluster around us for one deed."""

    def callback(**values: str) -> int:
        from hpcresume.emulate.ask import ask

        return ask([name, *(values[argument] for argument in arguments)])

    return click.Command(name, params=[click.Argument([a]) for a in arguments], callback=callback, help=text)


DEEDS = {
    "preempt": _deed("preempt", ("job",), "Preempt a job of the emulated cluster that we are in."),
    "kill-rank": _deed("kill-rank", ("job", "rank"), "kill -9 of one rank of a job of this emulated cluster."),
    "kill-node": _deed("kill-node", ("node",), "Lose a node of this emulated cluster, with all that runs on it."),
}
"""Name → command, typed inside `hpcresume emulate shell`."""
