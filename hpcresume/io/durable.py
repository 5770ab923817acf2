"""Writes that survive a power cut, and whole reads. The one place that pairs fsync with rename.

Order: write a new file, fsync it, rename it over the old name, fsync the directory (rename(2), fsync(2)).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any

from hpcresume.io.files import files

__all__ = [
    "append_line",
    "create_durably",
    "fsync_directory",
    "make_directory",
    "pread_exactly",
    "pwrite_all",
    "remove_tree",
    "write_durably",
    "write_new_file",
]


def pwrite_all(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` (a flat byte view) at `offset`.

    Raises:
        OSError: as pwrite(2) does; a write that makes no progress is ENOSPC.
    """
    done = 0
    while done < len(data):
        count = files().pwrite(fd, data[done:], offset + done)
        if count <= 0:
            raise OSError(errno.ENOSPC, "write made no progress")
        done += count


def pread_exactly(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` (a flat byte view) from `offset`; return the bytes read, fewer only at the end of the file."""
    done = 0
    while done < len(buffer):
        count = files().pread_into(fd, buffer[done:], offset + done)
        if count == 0:
            break
        done += count
    return done


def fsync_directory(path: Path) -> None:
    """Make renames and creations in a directory durable."""
    fd = files().open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        files().fsync(fd)
    finally:
        files().close(fd)


def make_directory(path: Path, *, exclusive: bool = False) -> None:
    """Make a directory (0700) and its parents; an `exclusive` one must not exist and is made durable.

    Raises:
        FileExistsError: `exclusive`, and it exists.
    """
    if exclusive:
        files().mkdir(path)
        fsync_directory(path.parent)
        return
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        try:
            files().mkdir(each)
        except FileExistsError:
            if not each.is_dir():
                raise
        else:
            fsync_directory(each.parent)


def write_new_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create `path` (it must not exist), write, fsync. The caller makes the directory durable."""
    fd = files().open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        pwrite_all(fd, memoryview(data), 0)
        files().fsync(fd)
    finally:
        files().close(fd)


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data`: readers see the old content or the new one, also after a power cut."""
    scratch = _scratch(path)
    try:
        write_new_file(scratch, data, mode=mode)
        files().rename(scratch, path)
    except BaseException:
        _unlink_quietly(scratch)
        raise
    fsync_directory(path.parent)


def create_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create `path` with `data`, whole from its first instant; the loser of a race gets `FileExistsError`.

    Where the filesystem has no hard links a rename does it, and the last of a race wins.
    """
    scratch = _scratch(path)
    try:
        write_new_file(scratch, data, mode=mode)
        try:
            files().link(scratch, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            files().rename(scratch, path)
    finally:
        _unlink_quietly(scratch)
    fsync_directory(path.parent)


_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What link(2) says where there are no hard links (vfat and some FUSE filesystems: EPERM)."""


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _unlink_quietly(path: Path) -> None:
    """Remove a scratch file if it is there; what goes wrong here must not hide why we are here."""
    with contextlib.suppress(OSError):
        files().unlink(path)


def remove_tree(path: Path) -> None:
    """Remove a file, a link, or a directory with all that is in it; links are unlinked, never followed."""
    if path.is_symlink() or not path.is_dir():
        files().unlink(path)
        return
    with os.scandir(path) as entries:
        children = [Path(entry.path) for entry in entries]
    for child in children:
        remove_tree(child)
    files().rmdir(path)


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line in a single write and flush it to stable storage.

    Raises:
        OSError: it could not be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(line, allow_nan=False).encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
