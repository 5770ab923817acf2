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
from collections.abc import Callable
from pathlib import Path

__all__ = ["SETTLED", "Scratch"]

OWNER = ".owner"
"""The locked file; its first line names the machine and its start: a temporary directory may be shared, or outlive
both. What follows is the owner's note.
"""
TRIES = 8
SETTLED = 600.0
"""Seconds for which a directory is left alone after its last change: what a dead owner started may still write."""


LastRites = Callable[[bytes], None]


def _none(_note: bytes) -> None:
    """Nothing of a dead owner has to be ended."""


class Scratch:
    """One directory (0700), this process's own until `remove`.

    Attributes:
        path: where it is.
    """

    def __init__(
        self,
        prefix: str,
        *,
        parent: Path | None = None,
        note: bytes = b"",
        settled: float = SETTLED,
        last_rites: LastRites = _none,
    ) -> None:
        """Make one, and remove what dead owners left of the same prefix.

        Args:
            prefix: of its name.
            parent: where, by default the machine's temporary directory.
            note: given to the `last_rites` of whoever removes it, should its owner be killed.
            settled: seconds for which a dead owner's directory is left alone after its last change.
            last_rites: called with a dead owner's note before its directory is removed.

        Raises:
            OSError: no directory can be made.
        """
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        _sweep(parent, prefix, settled, last_rites)
        for _ in range(TRIES):
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            try:
                self._lock = os.open(self.path / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                os.write(self._lock, _machine() + note)
            except OSError:
                shutil.rmtree(self.path, ignore_errors=True)
                raise
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


def _sweep(parent: Path, prefix: str, settled: float, last_rites: LastRites) -> None:
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.startswith(prefix):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path), settled, last_rites)


def _remove_if_abandoned(directory: Path, settled: float, last_rites: LastRites) -> None:
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        return
    if time.time() - facts.st_mtime < settled:
        return
    try:
        lock = os.open(directory / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        directory.rmdir()  # its owner was killed right after it was made: it is empty, or none of ours
        return
    try:
        machine, text = _machine(), os.read(lock, 1000)
        if machine and text.startswith(machine):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last_rites(text.removeprefix(machine))
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(lock)
