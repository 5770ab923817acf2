"""Warning signals: heard while the main thread sits in C code, kept away from everything that we start.

Owns handlers, signal mask, wake-up descriptor, the listener thread, and what a forked child undoes.
Decides nothing: it notes what came. Knows no rank and no file.

The C handler that Python installs writes each signal's number to the wake-up descriptor at once, in whichever
thread the kernel chose; a Python handler would have to wait for the main thread. USR1 and USR2 are blocked in
the main thread and unblocked in the listener only: processes that the main thread starts inherit the
blocked mask (pthread_sigmask(3), execve(2)) and survive a signal that goes to every process of a step.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, Final

from hpcresume.errors import ConfigError, UsageError
from hpcresume.session.warnings_seen import WarningsSeen

__all__ = ["SHIELDED", "SignalWatch", "blocked_for_children", "signal_name", "signal_numbers"]

SHIELDED: Final = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""Blocked in the main thread, ignored in forked children: their default action kills."""

_ALLOWED: Final = ("USR1", "USR2", "TERM", "HUP", "INT", "QUIT", "XCPU")
_STOP: Final = b"\0"
_BEAT: Final = 15_000
"""Milliseconds between two calls of `beat`."""

Handler = Callable[[int, FrameType | None], Any] | int | None


def signal_numbers(names: object) -> tuple[signal.Signals, ...]:
    """Signals of names like "USR1" or "SIGUSR1", each once.

    Raises:
        ConfigError: not a list of names of signals that can serve as a warning.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ConfigError(f"{names!r} is no list of signals", where="signals", hint='("USR1", "TERM")')
    found: dict[signal.Signals, None] = {}
    for name in names:
        short = name.upper().removeprefix("SIG") if isinstance(name, str) else name
        if short not in _ALLOWED:
            raise ConfigError(f"{name!r} cannot be a warning", where="signals", hint=", ".join(_ALLOWED))
        found[signal.Signals[f"SIG{short}"]] = None
    return tuple(found)


def signal_name(number: int) -> str:
    """SIGUSR1 for 10."""
    return signal.Signals(number).name


class SignalWatch:
    """Listens for `numbers` between `arm` and `disarm` and notes them in `seen`.

    Args:
        numbers: which signals.
        seen: where they are noted.
        beat: called by the listener every quarter of a minute.

    Attributes:
        heard: called by the listener at the first signal of each number, once everybody else knows of it.
    """

    def __init__(
        self, numbers: Iterable[signal.Signals], seen: WarningsSeen, beat: Callable[[], None] = lambda: None
    ) -> None:
        self.numbers = tuple(numbers)
        self.beat = beat
        self.heard: Callable[[int], None] = _nobody
        self._seen = seen
        self._found: dict[signal.Signals, Handler] = {}
        self._mask: set[int] = set()
        self._forward = -1
        self._read = self._write = -1
        self._listener: threading.Thread | None = None

    def arm(self) -> list[str]:
        """Begin. Signals that were blocked and pending are delivered now.

        Returns:
            What was found installed by others and is replaced until `disarm`, one sentence each.

        Raises:
            UsageError: not in the main thread, where alone Python sets handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            raise UsageError(
                "a session has to be opened in the main thread, where alone Python can handle signals",
                where=threading.current_thread().name,
                hint="open it in the main thread, or pass signals=()",
            )
        global _watching
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._forward = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self.numbers = tuple(n for n in self.numbers if not _ignored_by_nohup(n))
        self._found = {number: signal.signal(number, self._handle) for number in self.numbers}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED & set(self.numbers))
        self._listener = threading.Thread(target=self._listen, name="hpcresume signals", daemon=True)
        self._listener.start()
        _watching = self
        return self._foreign()

    def disarm(self) -> None:
        """End: everything as it was found, except that USR1 and USR2 are ignored where they would kill.

        A warning that repeats itself must not turn a process that is leaving in order into a crash.
        """
        global _watching
        if self._listener is None:
            return
        _watching = None
        os.write(self._write, _STOP)
        self._listener.join()
        self._listener = None
        for number, found in self._found.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, _left_behind(number, found))
        self._return_wakeup_descriptor()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (SHIELDED & set(self.numbers)) - self._mask)
        os.close(self._read)
        os.close(self._write)

    def _return_wakeup_descriptor(self) -> None:
        other = signal.set_wakeup_fd(-1)
        wanted = self._forward if other == self._write else other
        with contextlib.suppress(OSError, ValueError):  # its owner may have closed it meanwhile
            signal.set_wakeup_fd(wanted, warn_on_full_buffer=False)

    def check(self) -> list[str]:
        """Take back what somebody else replaced since. Costs about a microsecond when nobody did.

        Returns:
            What was found, one sentence each.
        """
        if self._listener is None:
            return []
        taken = []
        other = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        if other != self._write:
            self._forward = other
            taken.append("the wake-up descriptor had been replaced; taken back")
        for number in self.numbers:
            if signal.getsignal(number) != self._handle:
                replaced = signal.signal(number, self._handle)
                taken.append(f"{number.name} had been taken by {_handler_name(replaced)}; taken back")
        return taken

    def detach_in_child(self) -> None:
        """In a forked child: its signals are its own and never reach the parent's pipe."""
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
            for number in self.numbers:
                signal.signal(number, signal.SIG_IGN if number in SHIELDED else signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)
        self._listener = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._seen.note(number, time.monotonic())

    def _listen(self) -> None:
        """Body of the listener: the only thread in which the shielded signals are unblocked."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.numbers)
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        told: set[int] = set()
        while True:
            data = os.read(self._read, 4096) if poll.poll(_BEAT) else b""
            at = time.monotonic()
            for number in data:
                if number in self.numbers:
                    self._seen.note(number, at)
                    self._seen.arrivals += 1
            if _STOP[0] in data:
                return
            self._pass_on(data)
            for number in sorted(set(data) & set(self.numbers) - told):
                told.add(number)
                self.heard(number)
            self.beat()

    def _pass_on(self, data: bytes) -> None:
        """Whoever had the wake-up descriptor before us (asyncio, for instance) still gets every byte."""
        if data and self._forward >= 0:
            with contextlib.suppress(OSError):
                os.write(self._forward, data)

    def _foreign(self) -> list[str]:
        defaults = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
        taken = [
            f"{number.name} was handled by {_handler_name(found)}; replaced until the session ends"
            for number, found in self._found.items()
            if found not in defaults
        ]
        if self._forward >= 0:
            taken.append("a wake-up descriptor was set; it still gets every signal")
        return taken


def _ignored_by_nohup(number: signal.Signals) -> bool:
    """nohup(1) ignores HUP so that the program outlives its terminal: that is respected."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def _left_behind(number: signal.Signals, found: Handler) -> Handler:
    """The handler to leave: the one found, if it can be set from Python and does not kill on a warning."""
    harmless = signal.SIG_IGN if number in SHIELDED else signal.SIG_DFL
    return harmless if found is None or found == signal.SIG_DFL else found


def _handler_name(handler: Handler) -> str:
    if handler is None:
        return "code outside Python (it cannot be restored)"
    if isinstance(handler, int):
        return signal.Handlers(handler).name
    return f"{getattr(handler, '__module__', '')}.{getattr(handler, '__qualname__', repr(handler))}"


@contextlib.contextmanager
def blocked_for_children(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Processes started inside the block begin with `numbers` blocked. The listener hears them all the same."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set(numbers))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_watching: SignalWatch | None = None
_forking = threading.local()


def _before_fork() -> None:
    """Nothing may arrive between the fork and the child's detaching: it would be noted in the parent's pipe."""
    _forking.mask = None
    if _watching is not None:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _watching.numbers)


def _after_fork_in_parent() -> None:
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child() -> None:
    global _watching
    if _watching is not None:
        _watching.detach_in_child()
        _watching = None
    if _forking.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _nobody(_number: int) -> None:
    """Nobody wants to hear of it."""
