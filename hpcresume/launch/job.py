"""One start of a job from its first second to its exit code: `supervise` puts the parts together."""

from __future__ import annotations

from collections.abc import Mapping

from hpcresume.launch.ending import finish, last_seconds
from hpcresume.launch.gate import admit, fewer_tasks
from hpcresume.launch.hands import Hands
from hpcresume.launch.inbox import await_ending, hold_signals
from hpcresume.launch.options import LaunchOptions, Outcome
from hpcresume.launch.ranks import RunningRanks
from hpcresume.launch.rendezvous import LAUNCH_DIR, SUPERVISED, Rendezvous
from hpcresume.launch.starter import Start, plan_start
from hpcresume.launch.supervisor import Supervisor
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["plan", "supervise"]

_EXPORT_ALL = {"SLURM_EXPORT_ENV": "ALL"}
"""sbatch hands its own --export on to every srun in the job; with NONE the ranks would be without PATH and without us
(sbatch(1), --export)."""


def supervise(options: LaunchOptions, environ: Mapping[str, str]) -> Outcome:
    """Run one start of a job to its end.

    Raises:
        ConfigError: the ranks cannot be started.
        RunDirectoryError: there is no place for the launch directory.
    """
    hold_signals()
    if options.fallback.nodes is not None:
        environ = {**environ, **fewer_tasks(environ)}
    slurm = SlurmEnvironment.from_environ(environ)
    admission = admit(options, slurm, Hands())
    if admission.refused is not None:
        if admission.refused.held or admission.refused.requeued:
            await_ending()
        return admission.refused
    options = admission.options
    rendezvous = Rendezvous.create(options.run, environ)
    try:
        start = _plan(options, slurm, {**rendezvous.environ(), **admission.shared})
        ranks = RunningRanks(start, {**environ, **_EXPORT_ALL, **start.environ}, quiet=options.quiet)
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
