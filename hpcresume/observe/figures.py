"""Figures as people read them."""

from __future__ import annotations

__all__ = ["age", "duration", "size", "span"]


def size(nbytes: int) -> str:
    """Bytes for people, binary units: 1536 → "1.5 KiB"."""
    if nbytes < 1024:
        return f"{nbytes} B"
    value = float(nbytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """What was measured, for people: 0.42 → "0.42 s", 95 → "1 min 35 s", 5000 → "1 h 23 min"."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def span(seconds: float) -> str:
    """A time to wait or to look back at, for people: in whole seconds, from ten minutes on in whole minutes."""
    whole = max(0, round(seconds))
    return duration(whole - whole % 60 if whole >= 600 else whole)


def age(seconds: float) -> str:
    """The same for a column of a table, in its largest whole unit: 3700 → "1 h"."""
    whole = max(0, round(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"
