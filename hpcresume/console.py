"""Words for people on standard error that cannot fail: a full disk or a closed stream must not end a training."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback

__all__ = ["flush", "tell", "tell_error"]

_FAILURES = (OSError, ValueError, AttributeError)
"""Full or gone; closed by the program; None, where the process was started with the stream closed."""


def tell(text: str) -> None:
    """One line, at once."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except _FAILURES:
        atexit.unregister(_give_up)
        atexit.register(_give_up)


def tell_error(error: BaseException) -> None:
    """An exception with its traceback."""
    tell("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip("\n"))


def _give_up() -> None:
    """At the very end: what still cannot be written goes nowhere, or Python would end with exit code 120, not ours.

    (Py_FinalizeEx flushes the standard streams; before 3.11.5 or so an unwritten line stays in their buffers.)
    """
    try:
        sys.stderr.flush()
    except _FAILURES:
        with contextlib.suppress(*_FAILURES):
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, sys.stderr.fileno(), inheritable=False)
            os.close(nowhere)


def flush() -> None:
    """What was printed goes out, before a process that ends without Python's own end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(*_FAILURES):
            stream.flush()
