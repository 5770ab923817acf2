"""What ends a verb from outside: Ctrl-C, and TERM where a verb has something to clear away first."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["Terminated", "clear_away_at_term", "words_and_code"]


class Terminated(KeyboardInterrupt):
    """TERM came: the verb clears away as after Ctrl-C, and ends with TERM's exit code."""


def clear_away_at_term() -> None:
    """From now on TERM raises `Terminated` in the main thread instead of ending the process at once."""
    signal.signal(signal.SIGTERM, _raise)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def words_and_code(error: BaseException) -> tuple[str, int]:
    """What to say of an interrupt and its exit code, 128 + n as shells report it (bash(1), EXIT STATUS).

    click gives one of its own, with what came as its cause.
    """
    if isinstance(error, Terminated) or isinstance(error.__cause__, Terminated):
        return "terminated", 128 + signal.SIGTERM
    return "interrupted", 128 + signal.SIGINT
