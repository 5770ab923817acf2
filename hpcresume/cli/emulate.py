"""`hpcresume emulate`: options, lines and exit code; the scheduler is in `hpcresume.emulate`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import echo_json

if TYPE_CHECKING:
    from hpcresume.config.timetable import EmulatedJob
    from hpcresume.model import Event

__all__ = ["command"]

EPILOG = """\b
A moment is 5s (since the first start) or step:40 (that step is finished). Each entry happens once in the
life of the job. Signals follow what was watched on real clusters:
  --signal B:USR1@60   CONT+USR1 to the batch script (the supervisor) only
  --signal USR1@60     CONT+USR1 to every process of the ranks
  --signal none        a preemption sends CONT+TERM to the ranks; the time limit comes unannounced
  end of grace, time limit, scontrol requeue: CONT+TERM to all, KILL after --kill-wait

\b
Exit codes
   0  the job completed and the whole timetable came true
  75  the job waits to be started again (--max-attempts reached, or requeue not allowed)
  78  an entry of the timetable never came true, or an option is wrong
  else the batch script's own, 128 + n when signal n killed it
"""


@click.command("emulate", epilog=EPILOG)
@click.option("-N", "--nodes", type=int, default=1, show_default=True, help="Emulated nodes: n0, n1, …")
@click.option("-n", "--ntasks-per-node", "tasks", type=int, default=1, show_default=True, help="Ranks on each node.")
@click.option("--preempt", multiple=True, metavar="MOMENT", help="Preempt the job. Repeatable.")
@click.option("--kill-rank", multiple=True, metavar="MOMENT:RANK", help="kill -9 of one rank. Repeatable.")
@click.option("--kill-node", multiple=True, metavar="MOMENT:nI", help="Lose a node. Repeatable.")
@click.option("--grace", default="10s", show_default=True, metavar="TIME", help="From a preemption to the end.")
@click.option("--time-limit", metavar="TIME", help="Time limit of each attempt. Default: none.")
@click.option("--signal", "plan", default="B:USR1@60", show_default=True, metavar="[B:]SIG[@SECONDS]|none",
              help="The job's own --signal.")  # fmt: skip
@click.option("--no-user-signal", is_flag=True, help="The cluster has no send_user_signal: a preemption sends TERM.")
@click.option("--kill-wait", default="5s", show_default=True, metavar="TIME", help="From TERM to KILL.")
@click.option("--requeue-delay", default="1s", show_default=True, metavar="TIME", help="In the queue between attempts.")
@click.option("--no-requeue", is_flag=True, help="The job may not be requeued.")
@click.option("--max-attempts", type=int, default=20, show_default=True, help="Stop after so many.")
@click.option("--slurm", default="24.11", show_default=True, metavar="22.05|24.11",
              help="Whose rule counts for a job that exits within its grace: only newer ones requeue it.")  # fmt: skip
@click.option("--keep-logs", type=click.Path(path_type=Path, file_okay=False), help="Keep a log per attempt here.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; the job's output goes to stderr.")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...", type=click.UNPROCESSED)
def command(
    nodes: int,
    tasks: int,
    preempt: tuple[str, ...],
    kill_rank: tuple[str, ...],
    kill_node: tuple[str, ...],
    grace: str,
    time_limit: str | None,
    plan: str,
    no_user_signal: bool,
    kill_wait: str,
    requeue_delay: str,
    no_requeue: bool,
    max_attempts: int,
    slurm: str,
    keep_logs: Path | None,
    dry_run: bool,
    as_json: bool,
    words: tuple[str, ...],
) -> int:
    """Run COMMAND as one Slurm job on this machine, with preemptions, lost nodes and time limits on a timetable.

    The ranks run under real mpiexec with the SLURM_* variables set, supervised by the very `hpcresume launch`
    that a batch script uses. Nothing of the job is left behind.
    """
    from hpcresume.config import timetable as parse

    entries: list[parse.TimetableEntry] = [parse.parse_preemption(text) for text in preempt]
    entries += [parse.parse_rank_kill(text) for text in kill_rank]
    entries += [parse.parse_node_kill(text) for text in kill_node]
    job = parse.EmulatedJob(
        command=words,
        nodes=nodes,
        tasks_per_node=tasks,
        timetable=tuple(entries),
        grace=parse.parse_seconds(grace, "--grace"),
        time_limit=None if time_limit is None else parse.parse_seconds(time_limit, "--time-limit"),
        signal=parse.parse_signal(plan),
        user_signal=not no_user_signal,
        kill_wait=parse.parse_seconds(kill_wait, "--kill-wait"),
        requeue_delay=parse.parse_seconds(requeue_delay, "--requeue-delay"),
        requeue=not no_requeue,
        max_attempts=max_attempts,
        slurm=slurm,
        keep_logs=keep_logs,
    )
    return _plan(job, as_json) if dry_run else _run(job, as_json)


def _plan(job: EmulatedJob, as_json: bool) -> int:
    """Show the checked job and its timetable."""
    import shlex

    facts = {
        "command": list(job.command),
        "nodes": job.nodes,
        "ranks": job.ntasks,
        "signal": str(job.signal) if job.signal is not None else None,
        "grace": job.grace,
        "time_limit": job.time_limit,
        "timetable": [str(entry) for entry in job.timetable],
    }
    if as_json:
        echo_json(facts)
        return 0
    click.echo(f"{job.ntasks} ranks on {job.node_list}: {shlex.join(job.command)}")
    for entry in job.timetable:
        click.echo(f"  {entry}")
    return 0


def _run(job: EmulatedJob, as_json: bool) -> int:
    from dataclasses import asdict

    from hpcresume.emulate.job import emulate

    # A TERM to us ends the job's processes like Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    result = emulate(job, emit=_say, output=sys.stderr.buffer if as_json else sys.stdout.buffer)
    if as_json:
        attempts = [{**asdict(each), "log": str(each.log) if each.log else None} for each in result.attempts]
        echo_json({
            "state": result.state,
            "attempts": attempts,
            "never_fired": list(result.never_fired),
            "exit_code": result.exit_code,
        })  # fmt: skip
    return result.exit_code


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(event: Event) -> None:
    from hpcresume.emulate.lines import line

    click.echo(f"hpcresume emulate: {line(event)}", err=True)
