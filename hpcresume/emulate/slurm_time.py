"""Times as Slurm's commands read and print them. Pure but for the local time zone."""

from __future__ import annotations

import re
import time

__all__ = ["limit_text", "parse_begin", "parse_limit", "parse_past", "stamp", "used_text"]

_LIMIT = re.compile(
    r"(?:(?P<days>[0-9]{1,5})-(?P<dh>[0-9]{1,5})(?::(?P<dm>[0-9]{1,5})(?::(?P<ds>[0-9]{1,5}))?)?"
    r"|(?P<h>[0-9]{1,7}):(?P<hm>[0-9]{1,5}):(?P<hs>[0-9]{1,5})"
    r"|(?P<m>[0-9]{1,8})(?::(?P<ms>[0-9]{1,5}))?)"
)
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_NOW = re.compile(r"now(?:([+-])([0-9]{1,9})\s*([a-z]*))?")
_DAYS = {"midnight": 0, "today": 0, "noon": 43200, "tomorrow": 86400}
"""Words for times of this day, in seconds after its begin."""


def parse_limit(text: str) -> float | None:
    """Seconds of a `--time`: 10, 10:30, 1:00:00, 2-12, 2-12:30, 2-12:30:15; None for no limit (0, infinite).

    Raises:
        ValueError: no such form (sbatch(1), --time).
    """
    if text.lower() in ("infinite", "unlimited", "-1"):
        return None
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    part = {key: int(value or 0) for key, value in match.groupdict().items()}
    hours = part["days"] * 24 + part["dh"] + part["h"]
    seconds = hours * 3600 + (part["dm"] + part["hm"] + part["m"]) * 60 + part["ds"] + part["hs"] + part["ms"]
    return float(seconds) or None


def parse_begin(text: str, now: float) -> float:
    """Unix seconds of a `--begin`: now, now+10minutes, HH:MM, tomorrow, 2026-01-20T12:34:00 (sbatch(1), --begin).

    Raises:
        ValueError: no such form.
    """
    at, of_the_day = _moment(text.strip().lower(), now)
    return at + 86400 if of_the_day and at < now else at


def parse_past(text: str, now: float) -> float:
    """Unix seconds of sacct's --starttime and --endtime: now-2hours, today, HH:MM of the last 24 hours, and so on.

    Raises:
        ValueError: no such form.
    """
    at, of_the_day = _moment(text.strip().lower(), now)
    return at - 86400 if of_the_day and at > now else at


def _moment(text: str, now: float) -> tuple[float, bool]:
    """The time, and whether only the time of the day was given."""
    match = _NOW.fullmatch(text)
    if match is not None:
        unit = (match[3] or "second").rstrip("s") or "second"
        found = [length for name, length in _UNITS.items() if name.startswith(unit)]
        if not found:
            raise ValueError(f"not a time: {text!r}")
        shift = int(match[2] or 0) * found[0]
        return (now - shift if match[1] == "-" else now + shift), False
    today = time.localtime(now)
    if text in _DAYS:
        return time.mktime((*today[:3], 0, 0, _DAYS[text], 0, 0, -1)), text in ("midnight", "noon")
    for form in ("%Y-%m-%dt%H:%M:%S", "%Y-%m-%dt%H:%M", "%Y-%m-%d", "%m/%d/%y", "%H:%M", "%H:%M:%S"):
        try:
            read = time.strptime(text, form)
        except ValueError:
            continue
        if "%d" in form:
            return time.mktime(read), False
        return time.mktime((*today[:3], read.tm_hour, read.tm_min, read.tm_sec, 0, 0, -1)), True
    raise ValueError(f"not a time: {text!r}")


def stamp(unix: float | None, missing: str = "Unknown") -> str:
    """`2026-01-20T12:34:00` in local time."""
    return missing if unix is None else time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(unix))


def limit_text(seconds: float | None, *, full: bool = True, missing: str = "UNLIMITED") -> str:
    """A limit: `1-02:03:04` or `02:03:04` as scontrol prints it; squeue's (not `full`) leaves leading zeros out."""
    if seconds is None:
        return missing
    return f"{_days(seconds)}{_clock(seconds)}" if full else used_text(seconds)


def used_text(seconds: float) -> str:
    """Times of squeue: `0:06`, `10:00`, `1:02:03`, `2-01:02:03`."""
    if seconds >= 86400:
        return f"{_days(seconds)}{_clock(seconds)}"
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _days(seconds: float) -> str:
    days = int(seconds) // 86400
    return f"{days}-" if days else ""


def _clock(seconds: float) -> str:
    whole = int(seconds) % 86400
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
