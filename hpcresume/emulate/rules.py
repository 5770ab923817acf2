"""Slurm's rules, as seen on 22.05 and 24.11 (the tables of LOCAL_SLURM.md). Pure: no clock, no process.

Who is signalled on which event, and what becomes of the job when an attempt has ended.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass

from hpcresume.config.timetable import SignalPlan

__all__ = ["Aftermath", "Delivery", "Ended", "EndedBy", "Target", "aftermath", "end_sequence", "limit_warning",
           "preemption_warning"]  # fmt: skip


class Target(str, enum.Enum):
    """Who gets a signal."""

    BATCH = "batch"
    BATCH_ALL = "batch and children"
    RANKS = "ranks"


@dataclass(frozen=True)
class Delivery:
    """These signals, in this order, to these processes."""

    target: Target
    signals: tuple[signal.Signals, ...]


def preemption_warning(plan: SignalPlan | None, *, user_signal: bool = True) -> tuple[Delivery, ...]:
    """What a preemption sends at its begin.

    Args:
        plan: the job's `--signal`.
        user_signal: has the cluster `send_user_signal`? Without it `--signal` does not count here.
    """
    if plan is None or not user_signal:
        return (Delivery(Target.RANKS, (signal.SIGCONT, signal.SIGTERM)),)
    return _planned(plan)


def limit_warning(plan: SignalPlan | None) -> tuple[Delivery, ...]:
    """What comes before the time limit: only what `--signal` asked for."""
    return () if plan is None else _planned(plan)


def end_sequence(by: EndedBy) -> tuple[Delivery, ...]:
    """CONT and TERM to everything, children of the batch shell too; KILL follows after KillWait.

    At the end of a grace and at the time limit the ranks get a TERM of their own before (watched on 22.05).
    """
    ending = (signal.SIGCONT, signal.SIGTERM)
    first = (Delivery(Target.RANKS, (signal.SIGTERM,)),) if by in (EndedBy.PREEMPTION, EndedBy.TIME_LIMIT) else ()
    return (*first, Delivery(Target.BATCH_ALL, ending), Delivery(Target.RANKS, ending))


def _planned(plan: SignalPlan) -> tuple[Delivery, ...]:
    target = Target.BATCH if plan.to_batch else Target.RANKS
    return (Delivery(target, (signal.SIGCONT, signal.Signals(plan.number))),)


class EndedBy(str, enum.Enum):
    """What made an attempt end."""

    ITSELF = "itself"
    PREEMPTION = "preemption"
    TIME_LIMIT = "time limit"
    NODE_FAILURE = "node failure"
    REQUEUE = "scontrol requeue"
    CANCEL = "scancel"


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        by: what made it end.
        exit_code: the batch script's, 128 + n when signal n killed it.
        in_grace: was it inside the grace window of a preemption?
    """

    by: EndedBy
    exit_code: int
    in_grace: bool = False


@dataclass(frozen=True)
class Aftermath:
    """Slurm's state for the ended attempt, whether the job is started again, and why in a few words."""

    state: str
    requeued: bool
    why: str


def aftermath(ended: Ended, *, requeue: bool, slurm: str) -> Aftermath:
    """What becomes of the job. `requeue` is False for `--no-requeue`; `slurm` is "22.05" or "24.11"."""
    if ended.by is EndedBy.REQUEUE:
        return Aftermath("REQUEUED", True, "scontrol requeue asked for it")
    if ended.by is EndedBy.CANCEL:
        return Aftermath("CANCELLED", False, "scancel")
    if ended.by is EndedBy.NODE_FAILURE:
        return Aftermath("NODE_FAIL", requeue, "a node failed")
    if ended.by is EndedBy.TIME_LIMIT:
        return Aftermath("TIMEOUT", False, "the time limit; Slurm never requeues after it")
    if ended.by is EndedBy.PREEMPTION:
        return Aftermath("PREEMPTED", requeue, "killed at the end of its grace")
    if ended.in_grace and slurm != "22.05":
        return Aftermath("PREEMPTED", requeue, "it ended within its grace (requeued since 24.05)")
    state = "COMPLETED" if ended.exit_code == 0 else "FAILED"
    return Aftermath(state, False, "it ended by itself" + (" within its grace" if ended.in_grace else ""))
