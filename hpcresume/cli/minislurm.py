"""`hpcresume minislurm`: verbs, lines and exit code; the cluster is in `hpcresume.testing.minislurm`."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpcresume.cli.interrupts import clear_away_at_term
from hpcresume.cli.output import Column, echo_json, echo_table, json_option

if TYPE_CHECKING:
    from hpcresume.testing.minislurm.cluster import MiniSlurm
    from hpcresume.testing.minislurm.status import Status

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = """\b
In CI:
  hpcresume minislurm run --nodes 4 -- pytest tests/
or step by step:
  hpcresume minislurm up /tmp/mini --nodes 4
  eval "$(hpcresume minislurm env /tmp/mini)"
  sbatch job.sh
  hpcresume minislurm kill-node /tmp/mini n2
  hpcresume minislurm down /tmp/mini

Ctrl-C (exit code 130) and TERM (143) end what was started.

Needs Slurm's packages and no root: as a plain user it needs user namespaces, and jobs run as that user. The error
names the packages, or the setting, that is missing. docs/MINISLURM.md has more.
"""
_COLUMNS = (Column("NODE", style="bold"), Column("STATE"), Column("SLURMD", right=True))


@click.group("minislurm", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """A real Slurm of several nodes on this machine, for tests and CI.

    munged, slurmctld and a slurmd per node, each node with its own hostname, process tree, mounts and /dev/shm. Its
    directory holds everything of it, and `down` removes everything. Two partitions unless told otherwise: jobs in
    `low`, the default, are preempted and requeued by jobs in `high`.
    """
    context.obj = as_json


directory_argument = click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")


def _shape(function: F) -> F:
    """The options that say what a cluster is."""
    options = (
        click.option("--nodes", type=int, default=2, show_default=True, help="How many; they are n1, n2, …"),
        click.option("--cpus", type=int, default=2, show_default=True, help="Of each node, whatever the machine has."),
        click.option("--memory", type=int, default=2000, show_default=True, metavar="MB", help="Of each node."),
        click.option("--grace", type=int, default=20, show_default=True, metavar="SECONDS",
                     help="From the warning of a preemption to its end, in partition low."),
        click.option("--partition", "partitions", multiple=True, metavar="NAME[,KEY=VALUE…]",
                     help="Instead of low and high; keys: tier, preempt, grace, limit, nodes. Repeatable, first is "
                     "default."),
        click.option("--no-user-signal", is_flag=True,
                     help="A preemption sends TERM and not the signal of the job's --signal."),
        click.option("--accounting", is_flag=True, help="Run slurmdbd and a private MariaDB too, so that sacct works."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
                     help="A line of slurm.conf, added or in place of ours. Repeatable."),
        click.option("--root", type=click.Path(path_type=Path), metavar="ROOT",
                     help="Use the Slurm of another root, a folder with a Debian in it."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _cluster(directory: Path, shape: dict[str, Any]) -> MiniSlurm:
    from hpcresume.testing.minislurm.cluster import MiniSlurm
    from hpcresume.testing.minislurm.settings import parse_partition, parse_setting

    return MiniSlurm(
        directory,
        nodes=shape["nodes"],
        cpus=shape["cpus"],
        memory=shape["memory"],
        grace=shape["grace"],
        partitions=[parse_partition(text) for text in shape["partitions"]],
        user_signal=not shape["no_user_signal"],
        accounting=shape["accounting"],
        extra=dict(parse_setting(text) for text in shape["settings"]),
        root=shape["root"],
    )


@command.command("up")
@directory_argument
@_shape
@json_option
def _up(directory: Path, as_json: bool, **shape: Any) -> None:
    """Start a cluster in DIR and wait until its nodes are idle.

    DIR is new or empty, and short: there are unix sockets in it. Prints the lines that lead a shell to the cluster.
    """
    cluster = _cluster(directory, shape)
    clear_away_at_term()
    began = time.monotonic()
    cluster.up()
    seconds = time.monotonic() - began
    if as_json or _outer():
        echo_json({**_as_json(cluster.status()), "seconds": seconds, "variables": cluster.variables})
        return
    click.echo(f"hpcresume minislurm: {len(cluster.names)} nodes idle after {seconds:.1f} s, Slurm {cluster.version}; "
               f"the end of it: hpcresume minislurm down {shlex.quote(str(directory))}", err=True)  # fmt: skip
    _echo_variables(cluster.variables, "sh")


@command.command("run", context_settings={"ignore_unknown_options": False})
@_shape
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where. Default: a temporary directory.")
@click.option("--keep-logs", type=click.Path(path_type=Path, file_okay=False), help="Copy the daemons' logs here.")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...", type=click.UNPROCESSED)
def _run(words: tuple[str, ...], directory: Path | None, keep_logs: Path | None, **shape: Any) -> int:
    """Run COMMAND with a cluster around it, which ends with it; exit with its code.

    sbatch, srun and their kind speak with the cluster in COMMAND. Nothing is left, even after a kill -9.
    """
    clear_away_at_term()
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcresume-mini-")))
        cluster = stack.enter_context(_cluster(directory, shape))
        try:
            code = subprocess.run(words, env=cluster.environment, check=False).returncode
        finally:
            if keep_logs is not None:
                cluster.copy_logs(keep_logs)
    return code if code >= 0 else 128 - code


@command.command("down")
@directory_argument
@click.option("--keep-logs", is_flag=True, help="Leave the daemons' logs in DIR/log.")
@json_option
def _down(directory: Path, keep_logs: bool, as_json: bool) -> None:
    """End the cluster in DIR and remove everything of it. Jobs in it are killed.

    Only processes that this cluster started are ended. When nothing is up any more, that is fine too.
    """
    from hpcresume.testing.minislurm.cluster import MiniSlurm
    from hpcresume.testing.minislurm.state import nothing_is_there

    was_up = not nothing_is_there(directory)
    if was_up:
        MiniSlurm.attach(directory).down(keep_logs=keep_logs)
    if as_json or _outer():
        echo_json({"directory": str(directory), "was_up": was_up})
    elif not was_up:
        click.echo(f"hpcresume minislurm: nothing is up in {directory}", err=True)


@command.command("status")
@directory_argument
@json_option
def _status(directory: Path, as_json: bool) -> None:
    """Show the nodes and daemons of the cluster in DIR."""
    from hpcresume.testing.minislurm.cluster import MiniSlurm

    found = MiniSlurm.attach(directory).status()
    if as_json or _outer():
        echo_json(_as_json(found))
        return
    rows = [
        (node.name, node.state if node.powered else f"{node.state} (off)", _pid(node.slurmd)) for node in found.nodes
    ]
    echo_table(_COLUMNS, rows)
    daemons = ", ".join(f"{name} {_pid(pid)}" for name, pid in found.daemons.items())
    click.echo(f"Slurm {found.version}: {daemons}")


@command.command("env")
@directory_argument
@click.option("--format", "form", type=click.Choice(["sh", "github"]), default="sh", show_default=True,
              help="Lines for a shell's eval, or for $GITHUB_ENV.")  # fmt: skip
@json_option
def _env(directory: Path, form: str, as_json: bool) -> None:
    """Print the variables that lead sbatch, srun and their kind to the cluster in DIR."""
    from hpcresume.testing.minislurm.cluster import MiniSlurm

    variables = MiniSlurm.attach(directory).variables
    if as_json or _outer():
        echo_json(variables)
    else:
        _echo_variables(variables, form)


@command.command("kill-node")
@directory_argument
@click.argument("node")
@click.option("--slurmd-only", is_flag=True, help="Kill slurmd alone: what runs on the node goes on, unseen.")
def _kill_node(directory: Path, node: str, slurmd_only: bool) -> None:
    """Power a node off: everything on it dies at once. Slurm notices after SlurmdTimeout, 10 s."""
    from hpcresume.testing.minislurm.cluster import MiniSlurm

    cluster = MiniSlurm.attach(directory)
    if slurmd_only:
        cluster.kill_slurmd(node)
    else:
        cluster.kill_node(node)


@command.command("start-node")
@directory_argument
@click.argument("node")
def _start_node(directory: Path, node: str) -> None:
    """Power a node on, or start its slurmd again; wait until Slurm may use it."""
    from hpcresume.testing.minislurm.cluster import MiniSlurm

    clear_away_at_term()
    cluster = MiniSlurm.attach(directory)
    cluster.start_node(node)
    cluster.let_go()


def _outer() -> bool:
    """Whether --json came before the inner verb."""
    return bool(click.get_current_context().obj)


def _as_json(found: Status) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(found), "healthy": found.healthy}


def _pid(pid: int | None) -> str:
    return "dead" if pid is None else str(pid)


def _echo_variables(variables: dict[str, str], form: str) -> None:
    for name, value in variables.items():
        click.echo(f"{name}={value}" if form == "github" else f"export {name}={shlex.quote(value)}")
