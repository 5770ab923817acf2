"""Private directories in the machine's temporary directory, and the removal of those whose owner was killed.

Each holds a file that its owner has locked; the kernel lets go of the lock when the owner dies, however it dies.
Whoever makes the next directory of the kind removes those that are this user's, of this machine since it was started,
and locked by nobody. Needs the standard library alone: torchrun_agent.py loads this file by its path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

__all__ = ["SETTLED", "Scratch"]

OWNER = ".owner"
"""The locked file; its text names the machine and its start: a temporary directory may be shared, or outlive both."""
TRIES = 8
SETTLED = 600.0
"""Seconds for which a directory is left alone after its last change: what a dead owner started may still write."""


class Scratch:
    """One directory (0700), this process's own until `remove`.

    Attributes:
        path: where it is.
    """

    def __init__(self, prefix: str) -> None:
        """Make one, and remove what dead owners left of the same prefix.

        Raises:
            OSError: no directory can be made.
        """
        _sweep(Path(tempfile.gettempdir()), prefix)
        for _ in range(TRIES):
            self.path = Path(tempfile.mkdtemp(prefix=prefix))
            self._lock = os.open(self.path / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(self._lock, _machine())
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody who sweeps was quicker, and is about to remove it
                os.close(self._lock)
                continue
            except OSError:  # a filesystem without locks: nobody will take it for abandoned, nor remove it
                pass
            return
        raise OSError(f"each of {TRIES} directories was taken away at once")

    def remove(self) -> None:
        """Remove it with all that is in it. Never raises: it is only litter."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _machine() -> bytes:
    with contextlib.suppress(OSError):
        return f"{os.uname().nodename} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}\n".encode()
    return b""


def _sweep(parent: Path, prefix: str) -> None:
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(prefix):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(directory: Path) -> None:
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < SETTLED:
        return
    lock = os.open(directory / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if _machine() and os.read(lock, 1000) == _machine():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(lock)
