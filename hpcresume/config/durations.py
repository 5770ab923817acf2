"""Times and rhythms as people write them: "90s", "20min", "1h30m", "500 steps", "auto", "auto, at most 20min".

Owns the grammar and its error messages. Knows no clock.
"""

from __future__ import annotations

import difflib
import math
import re

from hpcresume.errors import ConfigError, NonFiniteError
from hpcresume.policy.cadence import MOST_SHARE, Auto, Cadence, EverySeconds, EverySteps

__all__ = ["format_seconds", "parse_cadence", "parse_duration"]

_UNITS = {
    "ms": 0.001,
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hrs": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", re.ASCII)
_STEPS = re.compile(r"(\d[\d_,]*)\s*steps?", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_WORD = re.compile(r"([+-]?[\d.,_]*)\s*([a-z]*)", re.ASCII)

_DIGITS = 12
"""Of a number of steps, as many as a generation's name has."""

_CADENCE_FORMS = '"20min", "90s", "1h30m", "500 steps" or "auto"'
_AUTO_FORMS = '"auto", "auto, at most 20min" or "auto, at most 5%"'
_AT_MOST = re.compile(r"at\s+most\s+(.+)", re.ASCII)
_PERCENT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*%", re.ASCII)
_DURATION_FORMS = '"90s", "20min" or "1h30m"'


def parse_duration(text: object, *, where: str = "duration") -> float:
    """Seconds of "90s", "20min", "1h30m", "1.5 h", "2 days"; always positive and finite.

    Raises:
        ConfigError: anything else; `where` names the option, and the hint the nearest valid form.
    """
    cleaned = _cleaned(text, where, _DURATION_FORMS)
    seconds = _seconds(cleaned)
    if seconds is None:
        hint = _nearest(cleaned, steps=False) or _DURATION_FORMS
        raise ConfigError(f"{text!r} is no duration", where=where, hint=hint)
    return _positive(seconds, text, where, _DURATION_FORMS)


def parse_cadence(text: object, *, where: str = "every") -> Cadence:
    """How often to save: a duration, "500 steps", or "auto" with limits: "auto, at most 20min, at most 5%".

    The time is the longest between two saves, the share is what saves may take of the time.

    Raises:
        ConfigError: anything else; the hint is the nearest valid form.
    """
    if isinstance(text, Auto | EverySeconds | EverySteps):
        return text
    cleaned = _cleaned(text, where, _CADENCE_FORMS)
    if re.match(r"auto\b", cleaned):
        return _auto(cleaned, text, where)
    steps = _STEPS.fullmatch(cleaned)
    if steps:
        digits = re.sub("[_,]", "", steps[1]).lstrip("0")
        count = int(digits[:_DIGITS] or 0)
        if len(digits) > _DIGITS:
            raise ConfigError(f"{text!r:.60} is more than any training has", where=where, hint='"500 steps"')
        _positive(count, text, where, '"1 step" or more')
        return EverySteps(count)
    seconds = _seconds(cleaned)
    if seconds is None:
        hint = _nearest(cleaned, steps=True) or _CADENCE_FORMS
        raise ConfigError(f"{text!r} is neither a time nor a number of steps", where=where, hint=hint)
    return EverySeconds(_positive(seconds, text, where, _CADENCE_FORMS))


def _auto(cleaned: str, text: object, where: str) -> Auto:
    """`auto` and what limits it, each kind of limit at most once."""
    word, *limits = (part.strip() for part in cleaned.split(","))
    at_most: float | None = None
    share: float | None = None
    wrong = ConfigError(f"{text!r:.80} is no rhythm", where=where, hint=_AUTO_FORMS)
    if word != "auto":
        raise wrong
    for limit in limits:
        match = _AT_MOST.fullmatch(limit)
        percent = _PERCENT.fullmatch(match[1]) if match else None
        seconds = _seconds(match[1]) if match and not percent else None
        if percent and share is None:
            share = float(percent[1]) / 100
        elif seconds is not None and at_most is None:
            at_most = _positive(seconds, text, where, _AUTO_FORMS)
        else:
            raise wrong
    if share is not None and not 0.001 <= share <= 0.5:
        raise ConfigError("a share of the time is from 0.1 % to 50 %", where=where, hint='"auto, at most 5%"')
    return Auto(at_most, MOST_SHARE if share is None else share)


def format_seconds(seconds: float) -> str:
    """A duration for people: "45s", "20min", "1h30min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g}s"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [f"{hours}h" if hours else "", f"{minutes}min" if minutes else "", f"{rest}s" if rest else ""]
    return "".join(parts)


def _cleaned(text: object, where: str, forms: str) -> str:
    if isinstance(text, str):
        return text.strip().lower()
    hint = forms
    if isinstance(text, float) and not math.isfinite(text):
        raise NonFiniteError(f"{text!r} is no finite number", where=where, hint=hint)
    if isinstance(text, int | float) and not isinstance(text, bool) and math.isfinite(text) and text > 0:
        hint = f'"{text:g}s" or "{math.ceil(text)} steps"' if "steps" in forms else f'"{text:g}s"'
    what = "has no unit" if hint != forms else "is no text"
    raise ConfigError(f"{text!r} {what}", where=where, hint=hint)


def _seconds(cleaned: str) -> float | None:
    """Sum of the parts, or None when there is a character that belongs to none, or an unknown unit."""
    total, end = 0.0, 0
    for part in _PART.finditer(cleaned):
        if cleaned[end : part.start()].strip() or part[2] not in _UNITS:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    return total if end and not cleaned[end:].strip() else None


def _positive(value: float, text: object, where: str, forms: str) -> float:
    if not math.isfinite(value):
        raise NonFiniteError("more than a number can hold", where=where, hint=forms)
    if value <= 0:
        raise ConfigError(f"{text!r} is not more than nothing", where=where, hint=forms)
    return value


def _nearest(cleaned: str, *, steps: bool) -> str:
    """A valid form close to what was written, quoted; "" when nothing is close."""
    if _NUMBER.fullmatch(cleaned):
        return f'"{cleaned}s" or "{math.ceil(float(cleaned))} steps"' if steps else f'"{cleaned}s"'
    match = _WORD.fullmatch(cleaned)
    words = [*_UNITS, "steps", "auto"] if steps else list(_UNITS)
    if match is None:
        return ""
    number = match[1].lstrip("+-").replace(",", ".")
    close = difflib.get_close_matches(match[2], words, n=1, cutoff=0.5)
    if close == ["auto"] and not number:
        return '"auto"'
    if not close or close == ["auto"] or not _NUMBER.fullmatch(number) or float(number) == 0:
        return ""
    unit = {"secs": "s", "mins": "min", "hrs": "h", "days": "d"}.get(close[0], close[0])
    return f'"{math.ceil(float(number))} steps"' if unit == "steps" else f'"{number}{unit}"'
