"""What to do with the time that is left after a warning. Pure: seconds in, a choice out."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

__all__ = ["Plan", "TimeLeft", "choose", "patience"]

LEAVING: Final = 2.0
"""Seconds kept for what follows a save: the decision on disk, the exit barrier, the end of the processes."""

CAUTION: Final = 1.25
"""A save may take this much longer than the last one before a deadline is missed: filesystems are shared."""

HOPELESS: Final = 0.5
"""Below this share of what the quickest save takes, trying only leaves rubbish to sweep."""

UNREAD: Final = 0.6
"""Share of a save's time that is left without reading back: writing and syncing cost more than reading."""

SLOWEST: Final = 20e6
"""Bytes a second: a filesystem that gives one rank less is taken for dead, not for slow."""


class Plan(str, enum.Enum):
    """What is done at the step boundary after a warning. In each case the job stops afterwards."""

    SAVE = "save"
    SAVE_WITHOUT_READ_BACK = "save-without-read-back"
    KEEP_LAST = "keep-last"


@dataclass(frozen=True)
class TimeLeft:
    """What is known when a warning is answered.

    Attributes:
        remaining: seconds until the kill; None when nobody knows.
        save_seconds: what a full save took lately; None before the first.
        committed: the state of this step is in a generation already.
    """

    remaining: float | None
    save_seconds: float | None
    committed: bool = False


def choose(time: TimeLeft) -> Plan:
    """Save in full if that fits, without reading back if only that fits, and keep what there is otherwise.

    An unknown deadline or an unmeasured save means a full save: guessing shorter would give up proof, or
    work, for nothing. One step is worth its save too: the time until the kill is ours anyway.
    """
    if time.committed:
        return Plan.KEEP_LAST
    if time.remaining is None:
        return Plan.SAVE
    if time.save_seconds is None:
        return Plan.SAVE if time.remaining > LEAVING else Plan.SAVE_WITHOUT_READ_BACK
    usable = time.remaining - LEAVING
    if usable >= CAUTION * time.save_seconds:
        return Plan.SAVE
    if usable >= HOPELESS * UNREAD * time.save_seconds:
        return Plan.SAVE_WITHOUT_READ_BACK
    return Plan.KEEP_LAST


def patience(wait: float, nbytes: int) -> float:
    """Seconds until ranks that move `nbytes` each are called missing: a healthy long save is never cut off.

    Args:
        wait: how long ranks wait for each other when nothing is moved.
        nbytes: the most that one rank may have to write and read back, or to read.
    """
    return wait + 2 * nbytes / SLOWEST
