"""How long before its end an attempt has to be warned, from what its run has measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpcresume.policy.deadline import CAUTION, LEAVING

__all__ = ["LONGEST_LEAD", "Lead", "Timings", "needed", "needed_lead", "percentile"]

LEAST: Final = 10.0
"""Seconds of lead at the least: measures of milliseconds say nothing about a filesystem on a bad day."""
LONGEST_LEAD: Final = 65535
"""Seconds: the most that sbatch's --signal takes (sbatch(1))."""
MOST_SHARE: Final = 0.25
"""Of an allocation, for the lead: a job shorter than that is better off working than leaving."""
FEW: Final = 2.0
"""How much caution few measures cost: one means twice as much again, twenty a tenth."""


@dataclass(frozen=True)
class Timings:
    """What the newest attempts of a run have measured. Seconds, None where nothing was.

    Attributes:
        saves: what full saves took.
        longest_step: the longest time between two step boundaries, an attempt's first step left out.
        leaving: from the decision to the end of the last rank, the longest.
        begin: from the supervisor's first line to the first step, the longest: imports, restore, probes.
    """

    saves: tuple[float, ...] = ()
    longest_step: float | None = None
    leaving: float | None = None
    begin: float | None = None


@dataclass(frozen=True)
class Lead:
    """Seconds between the warning and the end, and what they are made of, in words."""

    seconds: float
    why: str


def needed_lead(timings: Timings, allocation: float | None = None) -> Lead | None:
    """How long before the end the ranks must be told; None while no save was measured.

    The step that is going on ends, all ranks save, they leave:

        longest step + (1.25 + 2 / n) · p95(n saves) + leaving

    1.25 is the caution with which a save is begun before a deadline (`policy.deadline`), so that the save that the
    lead allows is one that is then chosen. Few measures say little about the worst: hence 2 / n. Slurm's own signal
    comes up to 60 s earlier than asked for (sbatch(1), --signal) and never later, so nothing is added for it.

    Args:
        timings: what was measured.
        allocation: seconds that the attempt has from first to last, None when there is no limit.
    """
    if not timings.saves:
        return None
    save, step = percentile(timings.saves, 0.95), timings.longest_step or 0.0
    leaving = max(LEAVING, timings.leaving or 0.0)
    seconds = step + (CAUTION + FEW / len(timings.saves)) * save + leaving
    why = f"a save takes up to {save:.1f} s, a step {step:.1f} s, leaving {leaving:.1f} s"
    most = LONGEST_LEAD if allocation is None else min(LONGEST_LEAD, MOST_SHARE * allocation)
    return Lead(min(max(LEAST, math.ceil(seconds)), most), why)


def needed(timings: Timings) -> float | None:
    """Seconds without which an allocation is of no use: to begin, to work a step, to save it, to leave."""
    lead = needed_lead(timings)
    return None if lead is None else (timings.begin or 0.0) + lead.seconds


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that so many of them, as a share, do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
