"""Warnings inside a submitit job: kept until a session is armed, and never answered by submitit's own handlers.

submitit's handler saves in the middle of whatever runs, on rank 0 alone, requeues at once and charges the job's
budget of timeouts; it ignores TERM (submitit/core/job_environment.py). From the call of the function on these here
take their place: they note what came, and hand it to the session as soon as one listens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Final

__all__ = ["Keeper", "forget_pending", "warnings_kept"]

KEPT: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP)
"""What a session takes for a warning unless told otherwise."""
SHIELDED: Final = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""Blocked in the main thread, so that programs started from it do not die of a signal to the whole step."""
LOOK_EVERY = 0.05


class Keeper(threading.Thread):
    """Notes warnings while no session listens, and delivers them again once one does.

    Args:
        also: a further signal that is a warning here, though no session would take it for one: it arrives as USR1.
    """

    def __init__(self, also: signal.Signals | None = None) -> None:
        super().__init__(name="hpcresume keeps warnings", daemon=True)
        self._noted: set[int] = set()
        self._also = also if also not in KEPT else None
        self._over = threading.Event()
        self._came = threading.Event()
        self._before: dict[int, Any] = {}
        self._mask: set[Any] = set()

    def take_over(self) -> None:
        """From now on; in the main thread."""
        numbers = (*KEPT, self._also) if self._also is not None else KEPT
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
        self.start()

    def give_back(self) -> None:
        """Everything as it was found."""
        self._over.set()
        self._came.set()
        self.join()
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.add(number)
        self._came.set()

    def run(self) -> None:
        """Body of the thread."""
        while not self._over.is_set():
            self._came.wait()
            for number in tuple(self._noted):
                deliver = signal.SIGUSR1 if number == self._also else number
                if signal.getsignal(deliver) != self._note:  # a session has taken over
                    self._noted.discard(number)
                    os.kill(os.getpid(), deliver)
            if not self._noted:
                self._came.clear()
            self._over.wait(LOOK_EVERY)

    def forget(self) -> None:
        """What came so far belongs to the attempt that has just ended."""
        self._noted.clear()
        forget_pending(SHIELDED)


@contextlib.contextmanager
def warnings_kept(also: signal.Signals | None, *, for_good: bool) -> Iterator[Keeper]:
    """Keep warnings for the length of a block; `for_good`: until the process ends, since nothing follows."""
    keeper = Keeper(also)
    keeper.take_over()
    try:
        yield keeper
    finally:
        if not for_good:
            keeper.forget()
            keeper.give_back()


def forget_pending(numbers: Iterable[int]) -> None:
    """Take blocked signals off the list of pending ones."""
    while signal.sigtimedwait(set(numbers), 0) is not None:
        pass
