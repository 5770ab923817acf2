"""Work that may hang, such as a filesystem that does not answer, given up after so many seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["NoAnswer", "within"]

T = TypeVar("T")


class NoAnswer(OSError):
    """It took longer than it may. The thread that waits is left to itself: nothing can wake it."""


def within(seconds: float, work: Callable[[], T], what: str) -> T:
    """Do `work` in a thread of its own and give what it gives.

    Raises:
        NoAnswer: it did not end in time.
        Exception: whatever the work raises.
    """
    results: list[T] = []
    failures: list[Exception] = []

    def body() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            failures.append(error)

    thread = threading.Thread(target=body, name=f"doctor: {what}", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise NoAnswer(f"{what} gave no answer within {seconds:g} s")
    return results[0]
