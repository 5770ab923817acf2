"""What the attempts of a run have measured and been through, read from the ends of their ledgers.

Reads few and small parts of files that another process may be writing. Whatever cannot be read counts as not measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcresume.io.ends import read_ends
from hpcresume.io.paths import AttemptPaths, RunPaths, parse_generation_name
from hpcresume.model import Cause
from hpcresume.policy.failures import Exposure
from hpcresume.policy.lead import Timings

__all__ = ["read_exposure", "read_timings"]

ATTEMPTS: Final = 5
"""The newest attempts, of which saves and steps are taken: a run may have moved since the older ones."""
SAVES: Final = 20
"""The newest saves. Their 95th percentile is then the second slowest."""
PAST: Final = 20
"""The newest attempts whose ends are looked at for how often the run is interrupted."""
HEAD: Final = 16 * 1024
TAIL: Final = 64 * 1024
"""Bytes from the beginning and from the end of a ledger; an event is some 200 of them."""

_SESSION = (b'"saved"', b'"restored"', b'"fresh-start"', b'"stop"', b'"finished"', b'"claimed"')
_SUPERVISOR = (b'"started"', b'"child-exit"', b'"ended"')


def read_timings(run: RunPaths) -> Timings:
    """What the newest attempts have measured, the one that is going on included. Never raises."""
    saves: list[float] = []
    steps: list[float] = []
    leaving: list[float] = []
    begin: list[float] = []
    for number in reversed(_numbers(run)[-ATTEMPTS:]):
        paths = run.attempt(number)
        session, supervisor = _events(paths.ledger, _SESSION), _events(paths.supervisor, _SUPERVISOR)
        full = [each for each in session if each["event"] == "saved" and each.get("read_back") != "none"]
        saves += [seconds for each in reversed(full) if (seconds := _number(each, "seconds")) is not None]
        steps += [seconds for each in full if (seconds := _number(each, "longest_step")) is not None]
        leaving += _between(session, ("stop", "finished"), supervisor, "child-exit")
        begin += _between(supervisor, ("started",), session, "restored")
        begin += _between(supervisor, ("started",), session, "fresh-start")
    return Timings(
        tuple(reversed(saves[:SAVES])), max(steps, default=None), max(leaving, default=None), max(begin, default=None)
    )


def read_exposure(run: RunPaths, before: int) -> Exposure:
    """How long the attempts before number `before` worked, and how many of them ended at the cost of work.

    An attempt whose last step is in a generation has lost nothing, whatever ended it; and what a person ends says
    nothing about how often it will happen again. Never raises.
    """
    found = Exposure()
    for number in [each for each in _numbers(run) if each < before][-PAST:]:
        paths = run.attempt(number)
        events = _events(paths.ledger, _SESSION)
        began = next((t for e in events if e["event"] in ("restored", "fresh-start") and (t := _number(e, "t"))), None)
        if began is None:
            continue  # it did no work that could be lost
        worked = max(0.0, _last_sign(paths, events) - began)
        harmless = _saved_its_end(events) or _ended_by_person(paths)
        found += Exposure(0 if harmless else 1, worked)
    return found


def _saved_its_end(events: list[dict[str, Any]]) -> bool:
    for event in reversed(events):
        if event["event"] == "finished":
            return True
        if event["event"] == "stop":
            held = parse_generation_name(str(event.get("generation") or ""))
            return held is not None and held[0] == event.get("step")
    return False


def _ended_by_person(paths: AttemptPaths) -> bool:
    ends = [each for each in _events(paths.supervisor, _SUPERVISOR) if each["event"] == "ended"]
    return bool(ends) and ends[-1].get("cause") == Cause.OPERATOR.value


def _last_sign(paths: AttemptPaths, events: list[dict[str, Any]]) -> float:
    times = [t for event in events if (t := _number(event, "t")) is not None]
    for path in (paths.progress, paths.ledger):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def _between(
    first: list[dict[str, Any]], begins: tuple[str, ...], second: list[dict[str, Any]], end: str
) -> list[float]:
    """Seconds from the last of the one kind of event to the last of the other; empty where one is missing."""
    start = [t for each in first if each["event"] in begins and (t := _number(each, "t")) is not None]
    stop = [t for each in second if each["event"] == end and (t := _number(each, "t")) is not None]
    return [stop[-1] - start[-1]] if start and stop and stop[-1] >= start[-1] else []


def _numbers(run: RunPaths) -> list[int]:
    try:
        return sorted(run.attempt_numbers())
    except OSError:
        return []


def _events(path: Path, holding: tuple[bytes, ...]) -> list[dict[str, Any]]:
    return [event for event in _parsed(path, holding) if isinstance(event.get("event"), str)]


def _parsed(path: Path, holding: tuple[bytes, ...]) -> Iterator[dict[str, Any]]:
    for line in _ends(path).split(b"\n"):
        if any(word in line for word in holding):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue  # torn, or cut by the ends
            if isinstance(value, dict):
                yield value


def _ends(path: Path) -> bytes:
    try:
        return b"".join(read_ends(path, HEAD, TAIL))
    except OSError:
        return b""


def _number(event: Mapping[str, Any], key: str) -> float | None:
    """A finite number that is not negative; None for anything else."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 else None
