"""How often an attempt may end for each cause before the run is held for a person to look. Pure.

Counted are the newest attempts in a row without checkpoint progress: as soon as one attempt commits a step
beyond every earlier one, the count starts again. So a run that moves on is never held, and one that does not
move on ends after a known number of attempts. The count starts again, too, when a person lets a held run go on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from hpcresume.model import Cause, Decision

__all__ = [
    "DEFAULT_LIMITS",
    "DEFAULT_TOTAL",
    "Budgets",
    "PastAttempt",
    "barren_attempts",
    "follows_a_hold",
    "micro_batches",
    "since_release",
]

DEFAULT_LIMITS: Mapping[Cause, int] = MappingProxyType(
    {
        # A preemption is the cluster's doing and says nothing about the run: no entry, no limit.
        Cause.NODE_FAILURE: 5,
        # A filesystem that is away comes back by itself, and the pauses between the attempts grow (policy.pauses).
        Cause.STORAGE: 5,
        # Each of these repeats itself if nobody changes anything; three tries tell bad luck from a bug.
        Cause.CRASH: 3,
        Cause.UNKNOWN: 3,
        Cause.WALLTIME: 3,
        # Somebody may warn a run as often as he likes; but what is taken for a person may be none.
        Cause.OPERATOR: 10,
        # The same state needs the same memory again; one more try for a neighbour's fault.
        Cause.OUT_OF_MEMORY: 2,
    }
)
"""Attempts in a row without checkpoint progress at which the run is held."""

DEFAULT_TOTAL = 12
"""The same for all these causes together: a run to which everything happens in turn gets nowhere either."""


@dataclass(frozen=True)
class Budgets:
    """Limits per cause; a cause without one is free.

    Attributes:
        limits: attempts in a row without checkpoint progress, per cause.
        total: the same for all causes that have a limit together.
        restarts: restarts of any cause but preemption since the run began or was released, None without limit.
        micro_batches: the most pieces into which each batch may be cut after ends for want of memory; 1: the
            training cannot cut its batches, so want of memory is charged like any other cause.
    """

    limits: Mapping[Cause, int] = field(default_factory=lambda: DEFAULT_LIMITS)
    restarts: int | None = None
    micro_batches: int = 1
    total: int = DEFAULT_TOTAL


@dataclass(frozen=True)
class PastAttempt:
    """One ended attempt, as far as budgets care.

    Attributes:
        attempt: its number; 0 for a start that claimed none.
        cause: why it ended.
        committed: its newest committed step, None without any.
        decided: what was decided then: "done", "come-back", "hold", or "" when nobody could.
        memory: want of memory may have ended it.
        released: a person let the held run go on with this attempt.
        kept: the run was held, and its job stayed in the queue until somebody releases it.
    """

    attempt: int
    cause: Cause
    committed: int | None = None
    decided: str = ""
    memory: bool = False
    released: bool = False
    kept: bool = False


def barren_attempts(attempts: Sequence[PastAttempt], causes: Collection[Cause], most_micro_batches: int = 1) -> int:
    """How many attempts ended for one of `causes` since one last made checkpoint progress (that one not counted).

    An attempt that was followed by smaller micro-batches is not counted: the next one was no mere repetition.

    Args:
        attempts: in order, the newest last.
        causes: the causes to count.
        most_micro_batches: see `Budgets.micro_batches`.
    """
    best, count, pieces = -1, 0, 1
    for each in attempts:
        if each.released:
            count = 0
        answered = each.memory and pieces < most_micro_batches
        pieces = min(pieces * 2, most_micro_batches) if answered else pieces
        if each.committed is not None and each.committed > best:
            best, count = each.committed, 0
        elif each.cause in causes and not answered:
            count += 1
    return count


def micro_batches(attempts: Sequence[PastAttempt], most: int) -> int:
    """Into how many pieces the next attempt cuts each batch: twice as many after each end for want of memory.

    It never goes down again: the same model needs the same memory tomorrow.
    """
    pieces = 1
    for each in attempts:
        if each.memory:
            pieces = min(pieces * 2, most)
    return pieces


def follows_a_hold(past: Sequence[PastAttempt]) -> bool:
    """Was the run held after the newest of these attempts? That another one ran is then a person's doing: a start
    that is none is refused before it trains.
    """
    return bool(past) and past[-1].decided == Decision.HOLD.value


def since_release(attempts: Sequence[PastAttempt]) -> Sequence[PastAttempt]:
    """The attempts from the last one on with which a person let the held run go on; all when there is none."""
    for index in range(len(attempts) - 1, -1, -1):
        if attempts[index].released:
            return attempts[index:]
    return attempts
