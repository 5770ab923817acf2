"""When to save next. Pure: frozen values in, frozen values out; no clock, no file, no rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = [
    "Auto",
    "Cadence",
    "EverySeconds",
    "EverySteps",
    "SaveHistory",
    "next_cadence_step",
    "retry_delay",
    "save_is_due",
    "seconds_between_saves",
    "young_interval",
]

MEAN_TIME_BETWEEN_INTERRUPTIONS: Final = 6 * 3600.0
"""Seconds, as "auto" assumes. Between a preemptible queue (hours) and a large healthy job (half a day)."""

FIRST_SAVE: Final = 60.0
"""Seconds until the first save of "auto": it measures what a save costs, and proves early that it works."""

SHORTEST: Final = 60.0
LONGEST: Final = 3600.0
"""Seconds between which "auto" stays, whatever the formula says."""

RETRY_FIRST: Final = 10.0
RETRY_LONGEST: Final = 300.0
"""Seconds until a failed save is tried again, doubled with each further failure."""


@dataclass(frozen=True)
class EverySeconds:
    """Save when this many seconds have passed since the last save."""

    seconds: float


@dataclass(frozen=True)
class EverySteps:
    """Save after each multiple of this many steps."""

    steps: int


@dataclass(frozen=True)
class Auto:
    """Save as often as the measured cost of a save makes best, see `young_interval`."""

    mean_time: float = MEAN_TIME_BETWEEN_INTERRUPTIONS


Cadence = Auto | EverySeconds | EverySteps


@dataclass(frozen=True)
class SaveHistory:
    """What rank 0 knows about saves so far.

    Attributes:
        tried_step: step of the last save, successful or not (at first: the step the attempt began with).
        since_tried: seconds since that save ended (at first: since the attempt began its steps).
        failures: failed saves in a row.
        save_seconds: what a save took lately, None before the first.
    """

    tried_step: int
    since_tried: float
    failures: int = 0
    save_seconds: float | None = None


def young_interval(save_seconds: float, mean_time: float) -> float:
    """Seconds of work between two saves that lose least time: sqrt(2 · C · M).

    C is what a save takes, M the mean time between interruptions. J. W. Young, "A first order approximation
    to the optimum checkpoint interval", Comm. ACM 17 (1974) 530; J. T. Daly, Future Gener. Comput. Syst.
    22 (2006) 303 shows that it stays close to the optimum while C is well below M / 2.
    """
    return math.sqrt(2 * save_seconds * mean_time)


def seconds_between_saves(cadence: Cadence, save_seconds: float | None) -> float | None:
    """The interval in seconds, or None for a cadence in steps."""
    if isinstance(cadence, EverySteps):
        return None
    if isinstance(cadence, EverySeconds):
        return cadence.seconds
    if save_seconds is None:
        return FIRST_SAVE
    return min(LONGEST, max(SHORTEST, young_interval(save_seconds, cadence.mean_time)))


def retry_delay(failures: int, interval: float | None) -> float:
    """Seconds to wait after the `failures`-th failed save in a row; never longer than the cadence itself."""
    delay = min(RETRY_LONGEST, RETRY_FIRST * 2.0 ** min(failures - 1, 10))
    return float(delay if interval is None else min(delay, interval))


def save_is_due(cadence: Cadence, step: int, history: SaveHistory) -> bool:
    """Shall a save begin after `step` finished steps?"""
    if step <= history.tried_step:
        return False
    interval = seconds_between_saves(cadence, history.save_seconds)
    if history.failures and history.since_tried >= retry_delay(history.failures, interval):
        return True
    if isinstance(cadence, EverySteps):
        return step // cadence.steps > history.tried_step // cadence.steps
    return not history.failures and interval is not None and history.since_tried >= interval


def next_cadence_step(cadence: Cadence, step: int) -> int | None:
    """The next step after `step` at which a save is due by count, or None for a cadence in seconds."""
    return (step // cadence.steps + 1) * cadence.steps if isinstance(cadence, EverySteps) else None
