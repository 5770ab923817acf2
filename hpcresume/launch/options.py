"""What the user asks of `hpcresume launch` and what comes of it. Frozen values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.policy.budgets import Budgets
from hpcresume.policy.fallback import Fallback
from hpcresume.policy.pauses import Pauses
from hpcresume.policy.suspects import Exclusion

__all__ = ["LaunchOptions", "Outcome"]


@dataclass(frozen=True)
class LaunchOptions:
    """What the user asked for.

    Attributes:
        command: the program that every rank runs.
        run: the run directory, if known before the session says so.
        ranks: how many; None: the job's own number.
        starter: "auto", "srun", "mpiexec", "torchrun" or "direct".
        workers: ranks per node, for torchrun; None: one a GPU, else one.
        options: further options for srun or mpiexec.
        budgets: when to hold instead of coming back.
        pauses: how long to wait after a crash without progress.
        exclusion: how to keep off nodes that were lost.
        fallback: what to ask for when the run gets nowhere.
        stay: a held job stays in the queue, held; False: it ends with exit code 77.
        guard: leave a second job in the queue, should the requeued one be lost before its script runs; None: only
            where the cluster forbids to requeue, so that nobody else would bring a job back that dies with its node.
        requeue: ask Slurm to start the job again; False leaves it to exit code 75.
        release: start although the last attempt was held.
        stage: the name of the stage of a chain that the run is, "" for any other run.
        after: the runs of the stages that must be done before this one begins.
        time_limit: the job's full time limit, as scontrol takes it: put back for the next start where Slurm has
            lowered it to `--time-min`; "": left as it is.
        warn_before: seconds before the end of the allocation at which the ranks are told if nobody else has told
            them; 0: never; None: as the run's own measures say.
        quiet: the ranks' standard output goes to standard error.
    """

    command: tuple[str, ...]
    run: Path | None = None
    ranks: int | None = None
    starter: str = "auto"
    workers: int | None = None
    options: tuple[str, ...] = ()
    budgets: Budgets = field(default_factory=Budgets)
    pauses: Pauses = field(default_factory=Pauses)
    exclusion: Exclusion = field(default_factory=Exclusion)
    fallback: Fallback = field(default_factory=Fallback)
    stay: bool = True
    guard: bool | None = None
    requeue: bool = True
    release: bool = False
    stage: str = ""
    after: tuple[Path, ...] = ()
    time_limit: str = ""
    warn_before: float | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one start.

    Attributes:
        exit_code: the supervisor's.
        decision: "done", "come-back" or "hold".
        cause: why the ranks ended; None when none were started.
        reason: the decision's, one sentence.
        evidence: for the cause, one sentence each.
        run: the run's directory, None while unknown.
        attempt: its attempt, None when none was claimed.
        committed: newest step that the attempt committed, None without any.
        requeued: did Slurm accept to start the job again?
        held: does the job stay in the queue until somebody releases it?
        resubmitted: the number of the job that goes on instead, None without one.
    """

    exit_code: int
    decision: str
    cause: str | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()
    run: str | None = None
    attempt: int | None = None
    committed: int | None = None
    requeued: bool = False
    held: bool = False
    resubmitted: str | None = None
