"""The running ranks, seen through their launcher: one child process in a session of its own.

Owns starting it, passing warnings on without ever killing it by one, and leaving nothing behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from hpcresume.errors import ConfigError
from hpcresume.io.processes import SHIM, end_marked, signal_masks
from hpcresume.launch.rendezvous import LAUNCH_DIR
from hpcresume.launch.starter import Start
from hpcresume.policy.cause import ChildExit

__all__ = ["RunningRanks", "Warner"]

PATIENCE = 10.0
"""Seconds after which ranks that opened no session are taken for a program that never will."""


class RunningRanks:
    """The child that runs the ranks: srun, mpiexec, or the single rank itself."""

    def __init__(self, start: Start, environ: Mapping[str, str], *, quiet: bool = False) -> None:
        """Start it; `quiet` sends its standard output to standard error.

        It begins with an empty signal mask (ours has everything blocked), ignores USR1 and USR2 until it has
        handlers of its own (the default action would kill it), and gets TERM should the supervisor die: under
        Slurm the whole job is gone then anyway, elsewhere nobody else would stop it.

        Raises:
            ConfigError: it cannot be started.
        """
        self.mark = environ[LAUNCH_DIR]
        shim = [sys.executable, "-S", "-I", str(SHIM), "--only-blocked", "--end-with-parent", "TERM",
                "--ignore", "USR1", "--ignore", "USR2", "--"]  # fmt: skip
        try:
            self._child = subprocess.Popen(
                [*shim, *start.arguments],
                stdin=subprocess.DEVNULL,
                stdout=_standard_error() if quiet else None,
                env=dict(environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"the ranks cannot be started: {error}", where=start.arguments[0]) from error

    def poll(self) -> ChildExit | None:
        """How it ended, or None while it runs."""
        code = self._child.poll()
        if code is None:
            return None
        return ChildExit(code=code) if code >= 0 else ChildExit(signal=-code)

    def send(self, number: int) -> None:
        """Signal the launcher, which passes USR1 and USR2 on to the ranks."""
        if self._child.poll() is None:
            os.kill(self._child.pid, number)

    def listens(self) -> bool:
        """Has the launcher taken over USR1 (by a handler, or blocked for a waiting thread as srun does)?"""
        try:
            with open(f"/proc/{self._child.pid}/cmdline", "rb") as file:
                still_shim = os.fsencode(SHIM) in file.read().split(b"\0")[:6]
        except OSError:
            return False
        blocked, caught = signal_masks(self._child.pid)
        return not still_shim and bool((blocked | caught) >> (signal.SIGUSR1 - 1) & 1)

    def kill(self) -> None:
        """End the launcher and every rank on this machine, now."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        self.sweep()

    def sweep(self) -> int:
        """KILL what a dead launcher left on this machine (mpiexec killed by -9 leaves all ranks running)."""
        return end_marked(LAUNCH_DIR, self.mark)


def _standard_error() -> int:
    """Its descriptor; where the process was started without one, nobody wants to read what would go there."""
    return subprocess.DEVNULL if sys.stderr is None else sys.stderr.fileno()


class Warner:
    """Passes a warning on when it can arrive, and no sooner.

    A rank takes a warning in safely from its shim on; between fork and shim, a few milliseconds, it would die of
    it. That all ranks are past that is known when rank 0 has claimed the attempt, which needs them all. Until then
    nothing is lost by waiting, since there is nothing to save. A program without a session never claims: it gets
    its warning `PATIENCE` seconds after the start, if its launcher listens.
    """

    def __init__(self, send: Callable[[int], None], listens: Callable[[], bool], begun: Callable[[], bool]) -> None:
        """`send` signals the launcher, `listens` tells if it passes signals on, `begun` if the attempt is claimed."""
        self._send = send
        self._listens = listens
        self._begun = begun
        self._start = time.monotonic()
        self._number: int | None = None
        self._reached_begun = False
        self._sent = False

    @property
    def warned(self) -> bool:
        """Was there a warning to pass on yet?"""
        return self._number is not None

    @property
    def waiting(self) -> bool:
        """Must `advance` be called again soon?"""
        return self._number is not None and not self._reached_begun

    def warn(self, number: int) -> None:
        """Pass a signal on as soon as it can arrive."""
        self._number, self._sent, self._reached_begun = number, False, False
        self.advance()

    def advance(self) -> None:
        """Send what waits, if its time has come: once early, and once when the attempt is claimed."""
        if self._number is None or self._reached_begun:
            return
        self._reached_begun = self._begun()
        late = time.monotonic() - self._start > PATIENCE
        if self._reached_begun or (late and not self._sent and self._listens()):
            self._sent = True
            self._send(self._number)
