"""The signals of the batch step, taken one at a time. No handler runs: they stay blocked and are waited for.

So nothing is lost between two looks, nothing interrupts a write half way, and a signal that came before
Python was up is found pending (signal(7), sigtimedwait(2)).
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

__all__ = ["ENDING", "WARNINGS", "Taken", "await_ending", "hold_signals", "take_signal"]

FAREWELL_SECONDS = 60.0
"""How long to wait for the TERM that follows an accepted requeue."""

WARNINGS = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""Time is short: passed on as they are; srun and Open MPI's mpiexec forward both to every rank."""
ENDING = frozenset({signal.SIGTERM, signal.SIGHUP})
"""The scheduler's end sequence: never passed on as it is, srun would kill its tasks at once."""

_WAITED = frozenset({*WARNINGS, *ENDING, signal.SIGINT, signal.SIGCONT, signal.SIGCHLD})


@dataclass(frozen=True)
class Taken:
    """A signal and when it was taken, seconds since the epoch. SIGCHLD counts as none."""

    number: signal.Signals
    at: float


def hold_signals() -> None:
    """Block what the supervisor waits for, in this thread and all that it starts. Call it first of all."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    # A blocked signal is kept even when its default is to be ignored, but not when it is set to be ignored.
    for number in _WAITED:
        signal.signal(number, signal.SIG_DFL)


def take_signal(timeout: float) -> Taken | None:
    """The next signal; None after `timeout` seconds or when a child changed its state."""
    taken = signal.sigtimedwait(_WAITED, timeout)
    if taken is None or taken.si_signo == signal.SIGCHLD:
        return None
    return Taken(signal.Signals(taken.si_signo), time.time())


def await_ending(seconds: float = FAREWELL_SECONDS) -> bool:
    """Wait for the scheduler's end sequence, or for Ctrl-C; whether it came."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        taken = take_signal(left)
        if taken is not None and (taken.number in ENDING or taken.number == signal.SIGINT):
            return True
    return False
