"""Instants as people read them, in this machine's time zone; whatever a damaged file holds, they can be shown."""

from __future__ import annotations

import time

__all__ = ["date_and_time", "time_of_day"]

NEAR = 20 * 3600.0
"""Seconds within which the time of day alone cannot be mistaken for another day's."""


def date_and_time(moment: float) -> str:
    """`2024-05-06 07:08:09`; "?" for what no calendar knows."""
    return _formatted("%Y-%m-%d %H:%M:%S", moment)


def time_of_day(moment: float, since: float | None) -> str:
    """The date only where it is another day than `since`, or `since` is not known."""
    text, other = date_and_time(moment), date_and_time(since) if since is not None else ""
    near = since is not None and abs(moment - since) < NEAR and text[:10] == other[:10]
    return text[11:] if near else text


def _formatted(pattern: str, moment: float) -> str:
    try:
        return time.strftime(pattern, time.localtime(moment))
    except (ValueError, OverflowError, OSError):
        return "?"
