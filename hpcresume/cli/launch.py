"""`hpcresume launch`: the supervisor in the batch step. Options and help; the work is in `hpcresume.launch`."""

from __future__ import annotations

from pathlib import Path

import click

from hpcresume.cli.output import echo_json

__all__ = ["command"]

EPILOG = """\b
Exit codes
   0  the run is finished (or was before: DONE exists, no rank was started)
  75  come back: everything is committed; Slurm has requeued the job, or start it again yourself
  77  held: look at it first (the training exited 77, or the job cannot stay in the queue); --release starts it again.
      A spent budget leaves the job in the queue, held, with the reason as its comment: scontrol release goes on
  64, 65, 73, 78  wrong use, state, run directory or option: another attempt would end alike
  others  the ranks' own code when they failed before any session began (128 + n: killed by signal n)

\b
Signals
  USR1 USR2  passed on to the ranks at once; they save together and stop
  TERM HUP   the scheduler's end sequence: the ranks get USR1, never the TERM (srun would kill them)
  INT        save and stop, no requeue; a second one kills the ranks
"""


@click.command("launch", epilog=EPILOG, context_settings={"ignore_unknown_options": False})
@click.option("--run", type=click.Path(path_type=Path), help="The run directory, to see DONE before any rank starts.")
@click.option("--ranks", type=click.IntRange(min=1), help="How many ranks. Default: the job's own number, else 1.")
@click.option("--mpi", "starter", type=click.Choice(["auto", "srun", "mpiexec", "torchrun", "direct"]),
              default="auto", show_default=True, help="What starts the ranks. auto: srun in a Slurm job, else mpiexec; "
              "one rank alone outside Slurm needs neither. torchrun: one agent a node.")  # fmt: skip
@click.option("--workers-per-node", "workers", type=click.IntRange(min=1),
              help="Ranks per node, with torchrun. Default: one for each GPU of the job, else one.")  # fmt: skip
@click.option("--option", "options", multiple=True, metavar="TEXT",
              help="A further option for srun or mpiexec, such as --option=--cpu-bind=cores. Repeatable.")  # fmt: skip
@click.option("--max-restarts", type=click.IntRange(min=0),
              help="Hold after so many ends that were no preemption. Default: no limit.")  # fmt: skip
@click.option("--max-crashes", type=click.IntRange(min=1), default=3, show_default=True,
              help="Hold after so many crashes in a row without checkpoint progress.")  # fmt: skip
@click.option(
    "--when-held",
    type=click.Choice(["stay", "end"]),
    default="stay",
    show_default=True,
    help="A run whose budget is spent: its job stays in the queue, held, or ends with exit code 77.",
)
@click.option(
    "--pause",
    default="1min",
    show_default=True,
    metavar="TIME",
    help="Wait before the first restart after a crash without progress; doubled each time, at most 1 h. off.",
)
@click.option(
    "--exclude-for",
    default="12h",
    show_default=True,
    metavar="TIME",
    help="Keep off a node that was lost under the run for so long. off.",
)
@click.option(
    "--exclude-most",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Keep off so many nodes at once at the most.",
)
@click.option(
    "--micro-batches",
    type=click.IntRange(min=1),
    default=1,
    metavar="MOST",
    help="After an end for want of memory let s.micro_batches double, up to MOST. Default: 1, never.",
)
@click.option("--fallback-partition", metavar="NAME", help="Where to go when the run gets nowhere.")
@click.option("--fallback-nodes", type=click.IntRange(min=1), help="With how few nodes to make do then.")
@click.option("--fallback-failures", type=click.IntRange(min=1), help="Fall back after so many failures in a row.")
@click.option("--fallback-preemptions", type=click.IntRange(min=1), help="Fall back after so many preemptions.")
@click.option(
    "--fallback-waiting",
    metavar="TIME",
    help="Fall back after so long in the queue: a second job then waits there, and the first to start stays.",
)
@click.option(
    "--guard/--no-guard",
    default=None,
    help="Leave a second job behind this one, should Slurm lose it. Not said: where the cluster forbids to requeue.",
)
@click.option(
    "--time-limit",
    metavar="TIME",
    help="The job's full limit, put back for the next start where Slurm has lowered it to --time-min.",
)
@click.option(
    "--warn-before",
    default="auto",
    show_default=True,
    metavar="TIME",
    help="Tell the ranks so long before the end of the allocation, if Slurm has not. auto: as long as a step, a save "
    "and leaving have taken in this run. off.",
)
@click.option("--no-requeue", is_flag=True, help="Never call scontrol requeue: exit 75 instead.")
@click.option("--release", is_flag=True, help="Start although the last attempt was held.")
@click.option("--stage", default="", metavar="NAME",
              help="The run is this stage of a chain; a program without a session finishes it by ending well."
              )  # fmt: skip
@click.option("--after", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
              help="Begin only when this run is done; until then the job waits in the queue. Repeatable.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the command that would start the ranks, and start nothing.")
@click.option("--json", "as_json", is_flag=True,
              help="Print one JSON object at the end; the ranks' output goes to stderr.")  # fmt: skip
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...", type=click.UNPROCESSED)
def command(
    run: Path | None,
    ranks: int | None,
    starter: str,
    workers: int | None,
    options: tuple[str, ...],
    max_restarts: int | None,
    max_crashes: int,
    when_held: str,
    pause: str,
    exclude_for: str,
    exclude_most: int,
    micro_batches: int,
    fallback_partition: str | None,
    fallback_nodes: int | None,
    fallback_failures: int | None,
    fallback_preemptions: int | None,
    fallback_waiting: str | None,
    guard: bool | None,
    time_limit: str | None,
    warn_before: str,
    no_requeue: bool,
    release: bool,
    stage: str,
    after: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
    words: tuple[str, ...],
) -> int:
    """Start COMMAND on every rank, warn the ranks when time is short, and bring the job back.

    Belongs at the end of a batch script (exec hpcresume launch -- python train.py). Prepares the ranks
    against early signals, passes warnings on, waits for the commit, says why the attempt ended, and requeues
    the job or not, as that cause's budget allows. Works without Slurm too: then 75 means "start me again".
    """
    from hpcresume.launch.inbox import hold_signals

    hold_signals()  # before the slower imports: a signal that comes now stays pending

    import os
    import shlex
    from dataclasses import asdict

    from hpcresume.config.durations import parse_duration
    from hpcresume.config.slurm_options import parse_time_limit, slurm_time
    from hpcresume.launch.job import plan, supervise
    from hpcresume.launch.options import LaunchOptions
    from hpcresume.model import Cause
    from hpcresume.policy.budgets import DEFAULT_LIMITS, Budgets
    from hpcresume.policy.fallback import Fallback
    from hpcresume.policy.pauses import Pauses
    from hpcresume.policy.suspects import Exclusion

    def seconds(text: str, where: str) -> float:
        return 0.0 if text.strip().lower() in ("off", "0") else parse_duration(text, where=where)

    fallback = Fallback(
        partition=fallback_partition,
        nodes=fallback_nodes,
        after_failures=fallback_failures,
        after_preemptions=fallback_preemptions,
        after_waiting=None if fallback_waiting is None else seconds(fallback_waiting, "--fallback-waiting"),
    )
    fallback.check()
    given = LaunchOptions(
        command=words,
        run=run.absolute() if run is not None else None,
        ranks=ranks,
        starter=starter,
        workers=workers,
        options=options,
        budgets=Budgets({**DEFAULT_LIMITS, Cause.CRASH: max_crashes}, max_restarts, micro_batches),
        pauses=Pauses(seconds(pause, "--pause")),
        exclusion=Exclusion(seconds(exclude_for, "--exclude-for"), exclude_most),
        fallback=fallback,
        stay=when_held == "stay",
        guard=guard,
        requeue=not no_requeue,
        release=release,
        stage=stage,
        after=tuple(each.absolute() for each in after),
        time_limit="" if time_limit is None else slurm_time(parse_time_limit(time_limit, where="--time-limit")),
        warn_before=None if warn_before.strip().lower() == "auto" else seconds(warn_before, "--warn-before"),
        quiet=as_json,
    )
    if dry_run:
        start = plan(given, os.environ)
        facts = {"kind": start.kind, "arguments": list(start.arguments), "environ": dict(start.environ)}
        echo_json(facts) if as_json else click.echo(shlex.join(start.arguments))
        return 0
    outcome = supervise(given, os.environ)
    if as_json:
        echo_json(asdict(outcome))
    return outcome.exit_code
