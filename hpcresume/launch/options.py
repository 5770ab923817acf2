"""What the user asks of `hpcresume launch` and what comes of it. Frozen values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.policy.budgets import Budgets

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
        requeue: ask Slurm to start the job again; False leaves it to exit code 75.
        release: start although the last attempt was held.
        quiet: the ranks' standard output goes to standard error.
    """

    command: tuple[str, ...]
    run: Path | None = None
    ranks: int | None = None
    starter: str = "auto"
    workers: int | None = None
    options: tuple[str, ...] = ()
    budgets: Budgets = field(default_factory=Budgets)
    requeue: bool = True
    release: bool = False
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
