"""One start of a job from its first second to its exit code: `supervise` puts the parts together."""

from __future__ import annotations

from collections.abc import Mapping

from hpcresume.io.paths import RunPaths
from hpcresume.launch.ending import finish, last_seconds
from hpcresume.launch.inbox import hold_signals
from hpcresume.launch.journal import say
from hpcresume.launch.options import LaunchOptions, Outcome
from hpcresume.launch.ranks import RunningRanks
from hpcresume.launch.records import last_decision
from hpcresume.launch.rendezvous import LAUNCH_DIR, RELEASE, SUPERVISED, Rendezvous
from hpcresume.launch.starter import Start, plan_start
from hpcresume.launch.supervisor import Supervisor
from hpcresume.model import EXIT_DONE, EXIT_HOLD, Decision
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["plan", "supervise"]


def supervise(options: LaunchOptions, environ: Mapping[str, str]) -> Outcome:
    """Run one start of a job to its end.

    Raises:
        ConfigError: the ranks cannot be started.
        RunDirectoryError: there is no place for the launch directory.
    """
    hold_signals()
    slurm = SlurmEnvironment.from_environ(environ)
    refused = _refuse(options, slurm)
    if refused is not None:
        say(refused.reason)
        return refused
    rendezvous = Rendezvous.create(options.run, environ)
    try:
        released = {RELEASE: "1"} if options.release else {}
        start = _plan(options, slurm, {**rendezvous.environ(), **released})
        ranks = RunningRanks(start, {**environ, **start.environ}, quiet=options.quiet)
        supervisor = Supervisor(options, slurm, rendezvous, ranks, start.kind)
        while supervisor.turn():
            last_seconds(supervisor)
        return finish(supervisor)
    finally:
        rendezvous.remove()


def plan(options: LaunchOptions, environ: Mapping[str, str]) -> Start:
    """What `supervise` would start, without starting it.

    Raises:
        ConfigError: the ranks cannot be started.
    """
    shared = {LAUNCH_DIR: "(made at the start)", SUPERVISED: "1"}
    return _plan(options, SlurmEnvironment.from_environ(environ), shared)


def _plan(options: LaunchOptions, slurm: SlurmEnvironment, shared: Mapping[str, str]) -> Start:
    return plan_start(
        options.command,
        ranks=options.ranks,
        starter=options.starter,
        options=options.options,
        slurm=slurm,
        shared=shared,
        workers=options.workers,
    )


def _refuse(options: LaunchOptions, slurm: SlurmEnvironment) -> Outcome | None:
    """DONE first: a finished run never runs again. A held one only when a person says so."""
    if options.run is None:
        return None
    run = RunPaths(options.run)
    if run.done.exists():
        return Outcome(
            EXIT_DONE, Decision.DONE.value, reason=f"{run.root} is finished (DONE exists): nothing to start",
            run=str(run.root),
        )  # fmt: skip
    # After 24.05 Slurm restarts a job that exits within a grace window, whatever its exit code says.
    if slurm.restart_count and not options.release and last_decision(run) == Decision.HOLD.value:
        why = f"{run.root} is held and Slurm started the job again by itself; look at it, then use --release"
        return Outcome(EXIT_HOLD, Decision.HOLD.value, reason=why, run=str(run.root))
    return None
