"""When to save next. Pure: frozen values in, frozen values out; no clock, no file, no rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from hpcresume.policy.failures import PRIOR, mean_time

__all__ = [
    "MOST_SHARE",
    "Auto",
    "Cadence",
    "Chosen",
    "EverySeconds",
    "EverySteps",
    "SaveHistory",
    "choose_interval",
    "daly_interval",
    "next_cadence_step",
    "retry_delay",
    "save_is_due",
    "seconds_between_saves",
]

FIRST_SAVE: Final = 60.0
"""Seconds until the first save of "auto": it measures what a save costs, and proves early that it works."""

SHORTEST: Final = 60.0
LONGEST: Final = 7200.0
"""Seconds between which "auto" stays, whatever the formula says. An "at most" of the user's wins over both."""

MOST_SHARE: Final = 0.1
"""Of the time, for saves: "auto" spends no more, even where failures are so frequent that more would pay."""

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
    """Save as often as what a save costs and how often the run is interrupted make best, see `daly_interval`.

    Attributes:
        at_most: seconds between two saves that are never exceeded; None: no limit of the user's.
        share: of the time, for saves, that is not exceeded as long as `at_most` allows it.
    """

    at_most: float | None = None
    share: float = MOST_SHARE


Cadence = Auto | EverySeconds | EverySteps


@dataclass(frozen=True)
class SaveHistory:
    """What rank 0 knows about saves so far.

    Attributes:
        tried_step: step of the last save, successful or not (at first: the step the attempt began with).
        since_tried: seconds since that save ended (at first: since the attempt began its steps).
        failures: failed saves in a row.
        save_seconds: what a save took lately, None before the first.
        mean_time: seconds between ends of this run that cost work.
    """

    tried_step: int
    since_tried: float
    failures: int = 0
    save_seconds: float | None = None
    mean_time: float = mean_time(PRIOR)


@dataclass(frozen=True)
class Chosen:
    """What "auto" has chosen: seconds between two saves, and why, in a few words."""

    seconds: float
    why: str


def daly_interval(save_seconds: float, mean_time: float) -> float:
    """Seconds of work between the end of a save and the beginning of the next that lose least time.

    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Gener. Comput.
    Syst. 22 (2006) 303, equation (37): with C what a save takes and M the mean time between failures,

        sqrt(2 C M) · (1 + sqrt(C / 2M) / 3 + (C / 2M) / 9) - C   for C < 2M, else M.

    Its first term is J. W. Young's, "A first order approximation to the optimum checkpoint interval", Comm. ACM 17
    (1974) 530. What a restart takes does not enter, since it is the same for every interval. Failures are taken to be
    independent of each other; ends that were warned, and so saved, are none.
    """
    ratio = save_seconds / (2 * mean_time)
    if ratio >= 1:
        return mean_time
    return math.sqrt(2 * save_seconds * mean_time) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_seconds


def choose_interval(auto: Auto, save_seconds: float | None, mean_time: float) -> Chosen:
    """The interval of "auto". What the user set as the longest is never exceeded, whatever else speaks for it."""
    most = math.inf if auto.at_most is None else auto.at_most
    if save_seconds is None:
        found = Chosen(FIRST_SAVE, "the first save measures what one costs")
    else:
        shared, best = save_seconds * (1 - auto.share) / auto.share, daly_interval(save_seconds, mean_time)
        found = max(
            Chosen(shared, f"saves take {auto.share:.0%} of the time and no more"),
            min(Chosen(best, "this loses least time"), Chosen(LONGEST, "never longer than this"), key=_seconds),
            Chosen(SHORTEST, "never more often than this"),
            key=_seconds,
        )
    return min(found, Chosen(most, "never longer than asked"), key=_seconds)


def _seconds(chosen: Chosen) -> float:
    return chosen.seconds


def seconds_between_saves(
    cadence: Cadence, save_seconds: float | None, mean_time: float = SaveHistory.mean_time
) -> float | None:
    """The interval in seconds, or None for a cadence in steps."""
    if isinstance(cadence, EverySteps):
        return None
    if isinstance(cadence, EverySeconds):
        return cadence.seconds
    return choose_interval(cadence, save_seconds, mean_time).seconds


def retry_delay(failures: int, interval: float | None) -> float:
    """Seconds to wait after the `failures`-th failed save in a row; never longer than the cadence itself."""
    delay = min(RETRY_LONGEST, RETRY_FIRST * 2.0 ** min(failures - 1, 10))
    return float(delay if interval is None else min(delay, interval))


def save_is_due(cadence: Cadence, step: int, history: SaveHistory) -> bool:
    """Shall a save begin after `step` finished steps?"""
    if step <= history.tried_step:
        return False
    interval = seconds_between_saves(cadence, history.save_seconds, history.mean_time)
    if history.failures and history.since_tried >= retry_delay(history.failures, interval):
        return True
    if isinstance(cadence, EverySteps):
        return step // cadence.steps > history.tried_step // cadence.steps
    return not history.failures and interval is not None and history.since_tried >= interval


def next_cadence_step(cadence: Cadence, step: int) -> int | None:
    """The next step after `step` at which a save is due by count, or None for a cadence in seconds."""
    return (step // cadence.steps + 1) * cadence.steps if isinstance(cadence, EverySteps) else None
