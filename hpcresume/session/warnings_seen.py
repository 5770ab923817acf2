"""What this rank was told: which signals came, when, how often. Written by a thread and a handler."""

from __future__ import annotations

from hpcresume.model import Warned

__all__ = ["WarningsSeen"]


class WarningsSeen:
    """The warnings of one session. They are never taken back: after the first one the session stops.

    Attributes:
        arrivals: bytes that came through the wake-up descriptor, one for each signal delivered.
    """

    def __init__(self) -> None:
        self._first: dict[int, float] = {}
        self.arrivals = 0

    def note(self, number: int, at: float) -> None:
        """A signal came at `at` (seconds of `time.monotonic`); only its first time is kept."""
        self._first.setdefault(number, at)

    def __bool__(self) -> bool:
        return bool(self._first)

    @property
    def first(self) -> Warned | None:
        """The earliest warning."""
        found = [Warned(number, at) for number, at in list(self._first.items())]
        return min(found, key=lambda warned: warned.at, default=None)

    @property
    def numbers(self) -> list[int]:
        """All signals that came, each once, ascending."""
        return sorted(self._first)
