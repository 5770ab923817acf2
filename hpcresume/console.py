"""Words for people on standard error that cannot fail: a full disk or a closed stream must not end a training."""

from __future__ import annotations

import contextlib
import sys
import traceback

__all__ = ["flush", "tell", "tell_error"]

_FAILURES = (OSError, ValueError, AttributeError)
"""Full or gone; closed by the program; None, where the process was started with the stream closed."""


def tell(text: str) -> None:
    """One line, at once."""
    with contextlib.suppress(*_FAILURES):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def tell_error(error: BaseException) -> None:
    """An exception with its traceback."""
    tell("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip("\n"))


def flush() -> None:
    """What was printed goes out, before a process that ends without Python's own end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(*_FAILURES):
            stream.flush()
