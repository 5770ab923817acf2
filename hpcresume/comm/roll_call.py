"""Marks that waiting ranks leave in a shared directory, and who is missing among them.

A wait is a directory `<serial>-<slug>`, a mark an empty file named after the rank. Marks are hints for a
message, no state of the run: never synced, and not made through the seam that state goes through.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Answer", "call_roll", "is_called", "leave_mark", "ranks_text"]

_WAIT = re.compile(r"(\d{8,})-[a-z0-9-]*")
_MARK = re.compile(r"\d{5,}")
_SLUG_LENGTH = 60
MOST_SPANS = 16
"""Ranks, or rows of neighbouring ranks, that are named: every second one of thousands is cut short."""


@dataclass(frozen=True)
class Answer:
    """Who waits (`present`), who does not (`missing`), and where others were last seen to wait."""

    present: tuple[int, ...]
    missing: tuple[int, ...]
    elsewhere: tuple[tuple[int, str], ...] = ()

    def text(self, name: str, seconds: float) -> str:
        """One line for the user, about a wait called `name` that took `seconds`."""
        if not self.missing:
            return f"every rank has reached {name!r}, and it has not ended after {seconds:g} s"
        have = "has" if len(self.missing) == 1 else "have"
        line = f"{ranks_text(self.missing)} {have} not reached {name!r} after {seconds:g} s"
        places = [f"rank {rank} was last seen in {place!r}" for rank, place in self.elsewhere]
        return "; ".join([line, *places])


def ranks_text(ranks: Iterable[int]) -> str:
    """`rank 3`, `ranks 1, 3, 8-11`: a thousand ranks must fit on a line."""
    numbers = sorted(ranks)
    spans: list[list[int]] = []
    for rank in numbers:
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    parts = [f"{a}" if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in spans]
    rest = f" … ({len(numbers)} in all)" if len(parts) > MOST_SPANS else ""
    return f"rank{'' if len(numbers) == 1 else 's'} {', '.join(parts[:MOST_SPANS])}{rest}"


def is_called(directory: Path, serial: int) -> bool:
    """Whether some rank has called the roll for wait number `serial`."""
    return any(number == serial for number, _, _ in _waits(directory))


def leave_mark(directory: Path, serial: int, name: str, rank: int) -> None:
    """Say that `rank` waits in wait number `serial`; the first to do so calls the roll.

    Raises:
        OSError: the parent of `directory` does not exist, or nothing can be made there.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_SLUG_LENGTH].strip("-")
    place = directory / f"{serial:08d}-{slug}"
    for each in (directory, place):
        with contextlib.suppress(FileExistsError):
            os.mkdir(each, 0o700)
    os.close(os.open(place / f"{rank:05d}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def call_roll(directory: Path, serial: int, size: int) -> Answer:
    """Who has left a mark for wait `serial`, or for a later one, and so has passed it."""
    present: set[int] = set()
    latest: dict[int, tuple[int, str]] = {}
    for number, slug, place in _waits(directory):
        for rank in _marks(place):
            latest[rank] = max(latest.get(rank, (0, "")), (number, slug))
            if number == serial:
                present.add(rank)
    passed = {rank for rank, (number, _) in latest.items() if number > serial}
    missing = [rank for rank in range(size) if rank not in present and rank not in passed]
    elsewhere = [(rank, latest[rank][1]) for rank in sorted(latest) if rank not in present]
    return Answer(tuple(sorted(present)), tuple(missing), tuple(elsewhere))


def _waits(directory: Path) -> list[tuple[int, str, Path]]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for place in directory.iterdir():
            match = _WAIT.fullmatch(place.name)
            if match:
                found.append((int(match[1]), place.name[len(match[1]) + 1 :], place))
    return found


def _marks(place: Path) -> list[int]:
    return [int(mark.name) for mark in place.iterdir() if _MARK.fullmatch(mark.name)]
