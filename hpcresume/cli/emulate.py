"""`hpcresume emulate`: options, lines and exit code; the scheduler is in `hpcresume.emulate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcresume.cli.interrupts import clear_away_at_term
from hpcresume.cli.output import echo_json

if TYPE_CHECKING:
    from hpcresume.config.timetable import EmulatedJob, TimetableEntry
    from hpcresume.emulate.request import JobRequest
    from hpcresume.emulate.result import EmulationResult
    from hpcresume.emulate.settings import ClusterSettings
    from hpcresume.model import Emit, Event

__all__ = ["command"]

EPILOG = """\b
After the -- stands a training command, a batch script, or sbatch itself:
  hpcresume emulate -N 2 -n 2 --preempt 5s -- python train.py
  hpcresume emulate --preempt step:40 -- job.sbatch ARGUMENT...
  hpcresume emulate -- sbatch --array=1-4 job.sbatch
  hpcresume emulate shell --help      a shell, or a CI step, with a cluster in it
A file is taken for a batch script when its name ends in .sbatch, .slurm or .sl, or when it begins with #! and
#SBATCH stands in it or it is no command: not executable, or not on the PATH.

\b
A moment is 5s (since the first start) or step:40 (that step is finished). Each entry happens once in the
life of the (first) job. Signals follow what was watched on real clusters:
  --signal B:USR1@60   CONT+USR1 to the batch script (the supervisor) only
  --signal USR1@60     CONT+USR1 to every process of the ranks
  --signal none        a preemption sends CONT+TERM to the ranks; the time limit comes unannounced
  end of grace, time limit, scontrol requeue: CONT+TERM to all, KILL after --kill-wait

\b
Exit codes
   0  every job completed and the whole timetable came true
  75  a job waits to be started again (--max-attempts reached, or requeue not allowed)
  78  an entry of the timetable never came true, or an option is wrong
 130  Ctrl-C, 143 TERM: all jobs are ended, nothing is left
  else the batch script's own, 128 + n when signal n killed it
"""
SUFFIXES = (".sbatch", ".slurm", ".sl")
_SMALL = 1 << 20


class _Verb(click.Command):
    """`emulate`, and the few commands whose name may come right after it."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hand over to `shell` and its kind when that is the first word."""
        if args and not args[0].startswith("-"):
            from hpcresume.cli.emulate_shell import DEEDS, shell

            others = {"shell": shell, **DEEDS}
            if args[0] in others:
                return others[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
            _check_not_mistyped(args[0], others)
        return super().make_context(info_name, args, parent, **extra)


def _check_not_mistyped(word: str, known: Iterable[str]) -> None:
    """Refuse what is neither a command nor a file, and nearly one of our own words.

    Raises:
        UsageError: it is that.
    """
    import difflib
    import shutil

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    if near and shutil.which(word) is None and not Path(word).exists():
        raise click.UsageError(f"{word!r} is no command and no file; did you mean hpcresume emulate {near[0]}?")


@click.command("emulate", cls=_Verb, epilog=EPILOG)
@click.option("-N", "--nodes", type=int, help="Nodes of the job. Default: what the script says, else 1.")
@click.option(
    "-n", "--ntasks-per-node", "tasks", type=int, help="Ranks on each. Default: what the script says, else 1."
)
@click.option("--cluster-nodes", type=click.IntRange(min=1),
              help="Nodes of the cluster (n0, n1, …). Default: what the job needs.")  # fmt: skip
@click.option("--cpus", type=click.IntRange(min=1), help="Processors of each node. Default: as many as the job needs.")
@click.option("--preempt", multiple=True, metavar="MOMENT", help="Preempt the job. Repeatable.")
@click.option("--kill-rank", multiple=True, metavar="MOMENT:RANK", help="kill -9 of one rank. Repeatable.")
@click.option("--kill-node", multiple=True, metavar="MOMENT:nI", help="Lose the job's node I. Repeatable.")
@click.option("--grace", default="10s", show_default=True, metavar="TIME", help="From a preemption to the end.")
@click.option("--time-limit", metavar="TIME", help="Time limit of each attempt. Default: the script's, else none.")
@click.option("--signal", "plan", metavar="[B:]SIG[@SECONDS]|none",
              help="The job's own --signal. Default: the script's; B:USR1@60 for a command.")  # fmt: skip
@click.option("--no-user-signal", is_flag=True, help="The cluster has no send_user_signal: a preemption sends TERM.")
@click.option("--kill-wait", default="5s", show_default=True, metavar="TIME", help="From TERM to KILL.")
@click.option("--requeue-delay", default="1s", show_default=True, metavar="TIME", help="In the queue between attempts.")
@click.option("--no-requeue", is_flag=True, help="The job may not be requeued.")
@click.option("--max-attempts", type=int, default=20, show_default=True, help="Stop after so many.")
@click.option("--slurm", default="24.11", show_default=True, metavar="22.05|24.11",
              help="Whose rule counts for a job that exits within its grace: only newer ones requeue it.")  # fmt: skip
@click.option("--mpi-default", default="pmix", show_default=True, metavar="pmix|pmi2|none",
              help="The type of MPI that srun takes when it is not told.")  # fmt: skip
@click.option("--keep-logs", type=click.Path(path_type=Path, file_okay=False), help="Keep a log per attempt here.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; the jobs' output goes to stderr.")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND|SCRIPT [ARGUMENT]...", type=click.UNPROCESSED)
def command(words: tuple[str, ...], *, dry_run: bool, as_json: bool, **options: Any) -> int:
    """Run COMMAND or SCRIPT as a Slurm job on this machine, with preemptions, lost nodes, time limits on a timetable.

    A command's ranks run under real mpiexec with the SLURM_* variables set, supervised by the very `hpcresume launch`
    that a batch script uses. A script runs as Slurm would run it: sbatch, srun, scontrol, squeue, sacct, scancel and
    sinfo are first on its PATH. Nothing of the jobs is left behind but their output.
    """
    script = _is_script(words)
    show = (_plan_script if script else _plan) if dry_run else (_run_script if script else _run)
    result: int = show(words, options, as_json)
    return result


def _is_script(words: tuple[str, ...]) -> bool:
    """Is it `sbatch …`, or a batch script?

    Raises:
        ConfigError: it is a file that nothing could start: no command, and sbatch would refuse it as well.
    """
    import shutil

    from hpcresume.errors import ConfigError

    path = Path(words[0])
    if words[0] == "sbatch":
        return True
    command = shutil.which(words[0]) is not None
    try:
        if not path.is_file():
            return False
        if path.suffix in SUFFIXES:
            return True
        with path.open("rb") as file:
            head = file.read(_SMALL)
    except OSError:
        return False
    if head.startswith(b"#!"):
        return b"\n#SBATCH" in head or not command
    if not command:
        reader = "python" if path.suffix == ".py" else "bash"
        hint = f"begin it with #!, or name the program that reads it: -- {reader} {words[0]}"
        raise ConfigError("this file is neither a command nor a batch script", where=words[0], hint=hint)
    return False


def _timetable(options: dict[str, Any]) -> tuple[TimetableEntry, ...]:
    from hpcresume.config import timetable as parse

    entries: list[TimetableEntry] = [parse.parse_preemption(text) for text in options["preempt"]]
    entries += [parse.parse_rank_kill(text) for text in options["kill_rank"]]
    entries += [parse.parse_node_kill(text) for text in options["kill_node"]]
    return tuple(entries)


# ---- a command


def _job(words: tuple[str, ...], options: dict[str, Any]) -> EmulatedJob:
    from hpcresume.config import timetable as parse

    limit, plan = options["time_limit"], options["plan"]
    return parse.EmulatedJob(
        command=words,
        nodes=1 if options["nodes"] is None else options["nodes"],
        tasks_per_node=1 if options["tasks"] is None else options["tasks"],
        timetable=_timetable(options),
        grace=parse.parse_seconds(options["grace"], "--grace"),
        time_limit=None if limit is None else parse.parse_seconds(limit, "--time-limit"),
        signal=parse.parse_signal("B:USR1@60" if plan is None else plan),
        user_signal=not options["no_user_signal"],
        kill_wait=parse.parse_seconds(options["kill_wait"], "--kill-wait"),
        requeue_delay=parse.parse_seconds(options["requeue_delay"], "--requeue-delay"),
        requeue=not options["no_requeue"],
        max_attempts=options["max_attempts"],
        slurm=options["slurm"],
        keep_logs=options["keep_logs"],
    )


def _plan(words: tuple[str, ...], options: dict[str, Any], as_json: bool) -> int:
    """Show the checked job and its timetable."""
    import shlex

    job = _job(words, options)
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


def _run(words: tuple[str, ...], options: dict[str, Any], as_json: bool) -> int:
    from hpcresume.emulate.job import emulate

    job = _job(words, options)
    clear_away_at_term()
    result = emulate(job, emit=_teller(), output=sys.stderr.buffer if as_json else sys.stdout.buffer)
    return _ended(result, as_json)


# ---- a script


def _request(words: tuple[str, ...], options: dict[str, Any]) -> JobRequest:
    """The script's own wishes, those of our command line over them."""
    import dataclasses

    from hpcresume.config import timetable as parse
    from hpcresume.emulate.play import read_words
    from hpcresume.errors import ConfigError

    given = {"--nodes": options["nodes"], "--ntasks-per-node": options["tasks"]}
    request = read_words(words, [f"{name}={value}" for name, value in given.items() if value is not None])
    changes: dict[str, Any] = {}
    if options["plan"] is not None:
        changes["signal"] = parse.parse_signal(options["plan"])
    if options["time_limit"] is not None:
        changes["time_limit"] = parse.parse_seconds(options["time_limit"], "--time-limit")
        if changes["time_limit"] <= 0:
            raise ConfigError("the time limit must be positive", where="--time-limit", hint="--time-limit 60s")
    if options["no_requeue"]:
        changes["requeue"] = False
    return dataclasses.replace(request, **changes)


def _settings(request: JobRequest, options: dict[str, Any]) -> ClusterSettings:
    from hpcresume.config.timetable import parse_seconds
    from hpcresume.emulate.play import fitting
    from hpcresume.emulate.settings import ClusterSettings, default_partitions

    settings = ClusterSettings(
        partitions=default_partitions(parse_seconds(options["grace"], "--grace"), request.partition),
        kill_wait=parse_seconds(options["kill_wait"], "--kill-wait"),
        requeue_delay=parse_seconds(options["requeue_delay"], "--requeue-delay"),
        node_down=parse_seconds(options["requeue_delay"], "--requeue-delay"),
        user_signal=not options["no_user_signal"],
        mpi=options["mpi_default"],
        slurm=options["slurm"],
    )
    return fitting(request, settings, nodes=options["cluster_nodes"], cpus=options["cpus"])


def _plan_script(words: tuple[str, ...], options: dict[str, Any], as_json: bool) -> int:
    """Show what the script asks for."""
    request = _request(words, options)
    settings = _settings(request, options)
    facts = {
        "script": request.command,
        "name": request.name,
        "nodes": request.least_nodes,
        "ntasks": request.ntasks,
        "ntasks_per_node": request.ntasks_per_node,
        "signal": str(request.signal) if request.signal is not None else None,
        "time_limit": request.time_limit,
        "requeue": request.requeue is not False,
        "array": None if request.array is None else request.array.text,
        "cluster": {"nodes": settings.nodes, "cpus": settings.cpus},
        "timetable": [str(entry) for entry in _timetable(options)],
    }
    if as_json:
        echo_json(facts)
        return 0
    for key, value in facts.items():
        click.echo(f"{key}: {value}")
    return 0


def _run_script(words: tuple[str, ...], options: dict[str, Any], as_json: bool) -> int:
    from hpcresume.emulate.play import Play, play
    from hpcresume.errors import ConfigError

    request = _request(words, options)
    if options["max_attempts"] < 1:
        raise ConfigError("--max-attempts must be at least 1", where="--max-attempts", hint="--max-attempts 1")
    what = Play(request, _timetable(options), options["max_attempts"], options["keep_logs"])
    clear_away_at_term()
    output = sys.stderr.buffer if as_json else sys.stdout.buffer
    return _ended(play(what, _settings(request, options), emit=_teller(), output=output), as_json)


# ---- both


def _ended(result: EmulationResult, as_json: bool) -> int:
    from dataclasses import asdict

    def attempts(of: Any) -> list[dict[str, Any]]:
        return [{**asdict(each), "log": str(each.log) if each.log else None} for each in of.attempts]

    if as_json:
        jobs = [
            {"id": job.id, "name": job.name, "state": job.state, "exit_code": job.exit_code, "output": job.output,
             "attempts": attempts(job)}
            for job in result.jobs
        ]  # fmt: skip
        echo_json({
            "state": result.state,
            "attempts": attempts(result),
            "never_fired": list(result.never_fired),
            "exit_code": result.exit_code,
            "jobs": jobs,
        })  # fmt: skip
    return result.exit_code


def _teller() -> Emit:
    from hpcresume.emulate.lines import Lines

    lines = Lines()

    def tell(event: Event) -> None:
        click.echo(f"hpcresume emulate: {lines.of(event)}", err=True)

    return tell
