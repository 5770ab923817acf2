"""How often an attempt may end for each cause before the run is held for a person to look. Pure.

Counted are the newest attempts in a row without checkpoint progress: as soon as one attempt commits a step
beyond every earlier one, the count starts again. So a run that moves on is never held, and one that does not
move on ends after a known number of attempts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from hpcresume.model import Cause

__all__ = ["DEFAULT_LIMITS", "Budgets", "PastAttempt", "barren_attempts"]

DEFAULT_LIMITS: Mapping[Cause, int] = MappingProxyType(
    {
        # A preemption is the cluster's doing and says nothing about the run: no entry, no limit.
        Cause.NODE_FAILURE: 5,
        # Each of these repeats itself if nobody changes anything; three tries tell bad luck from a bug.
        Cause.CRASH: 3,
        Cause.STORAGE: 3,
        Cause.UNKNOWN: 3,
        Cause.WALLTIME: 3,
        # The same state needs the same memory again; one more try for a neighbour's fault.
        Cause.OUT_OF_MEMORY: 2,
    }
)
"""Attempts in a row without checkpoint progress at which the run is held."""


@dataclass(frozen=True)
class Budgets:
    """Limits per cause; a cause without one is free.

    Attributes:
        limits: attempts in a row without checkpoint progress, per cause.
        restarts: restarts of any cause but preemption over the whole life of the run, None without limit.
    """

    limits: Mapping[Cause, int] = field(default_factory=lambda: DEFAULT_LIMITS)
    restarts: int | None = None


@dataclass(frozen=True)
class PastAttempt:
    """One ended attempt, as far as budgets care. `committed` is its newest committed step, None without any.

    `decided` tells what was decided then: "done", "come-back", "hold", or "" when nobody could.
    """

    attempt: int
    cause: Cause
    committed: int | None = None
    decided: str = ""


def barren_attempts(attempts: Sequence[PastAttempt], cause: Cause) -> int:
    """How many attempts ended for `cause` since one last made checkpoint progress (that one not counted).

    Attempts are in order, the newest last.
    """
    best, count = -1, 0
    for each in attempts:
        if each.committed is not None and each.committed > best:
            best, count = each.committed, 0
        elif each.cause is cause:
            count += 1
    return count
