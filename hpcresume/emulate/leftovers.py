"""Folders of clusters that nobody cleared away, because their keeper was killed with them: the next cluster does it.

A cluster holds a lock on a file in each of its folders for as long as it lives, by whatever it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import time
from pathlib import Path

from hpcresume.emulate.census import MARK
from hpcresume.emulate.keeper_program import end_marked

__all__ = ["PREFIX", "lock", "sweep"]

PREFIX = "hpcresume-emulate-"
_LOCK = "owner"
_TOKEN = re.compile(r"[0-9a-f]{16}")
_YOUNG = 10.0
"""Seconds after which a cluster that starts has surely locked its file."""


def lock(directory: Path, token: str) -> int:
    """Make a cluster's folder known as one in use, until the descriptor is closed."""
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # a filesystem without locks: then nobody sweeps here either
        fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, token.encode("ascii"))
    return fd


def sweep(parent: Path) -> None:
    """Remove this user's folders of clusters that are gone, and end what still runs of their jobs."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove(Path(entry.path))


def _remove(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        return
    if time.time() - found.st_mtime < _YOUNG:
        return
    try:
        fd = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        directory.rmdir()  # killed right after mkdtemp: empty, or none of ours
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        token = os.read(fd, 64).decode("ascii", errors="replace")
        if _TOKEN.fullmatch(token):
            end_marked(f"{MARK}={token}.".encode())
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(fd)
