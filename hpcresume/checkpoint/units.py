"""Opening the files of a generation and reading units from them. Tells damage from trouble on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcresume.checkpoint.layout import Unit
from hpcresume.errors import DamagedError, RunDirectoryError, StorageAwayError
from hpcresume.io.durable import pread_exactly
from hpcresume.io.files import files
from hpcresume.io.hints import hint_for, is_away

__all__ = ["away", "open_file", "open_regular", "read_unit", "read_whole"]

Bytes = npt.NDArray[np.uint8]

_SPAN_BELOW = 64 << 10
"""Runs shorter than this are read as one span and picked apart: fewer calls beat fewer bytes."""
_SPAN_BYTES = 16 << 20
"""Bytes of one span at most: narrow columns of a wide array lie far apart."""
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EIO, errno.ESTALE)
"""What open(2) says of a file that is gone, replaced, or on a bad disk. Anything else (no permission, no descriptors
left) says nothing about the file, and no generation may be given up for it."""


def open_regular(path: Path, generation: str) -> int:
    """A descriptor for reading a regular file; neither follows a link nor waits for a pipe's writer.

    Raises:
        DamagedError: it is missing, no regular file, or cannot be read, twice.
        StorageAwayError: the storage cannot be reached.
        RunDirectoryError: it cannot be opened for another reason that is not the file's.
    """
    try:
        fd = _open_twice(path)
    except OSError as error:
        what = f"{path.name} cannot be opened: {error.strerror}"
        if is_away(error.errno):
            raise away(error, path) from error
        if error.errno in _DAMAGE:
            raise DamagedError(what, where=f"{generation}/{path.name}", generation=generation) from error
        hint = "check who owns it, its mode, and the limits of this process (ulimit -n)"
        raise RunDirectoryError(what, where=str(path), hint=hint) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        files().close(fd)
        what = f"{path.name} is no regular file"
        raise DamagedError(what, where=f"{generation}/{path.name}", generation=generation)
    return fd


def away(error: OSError, path: Path | str) -> StorageAwayError:
    """What to raise where a file cannot be reached; nobody knows what is in it."""
    return StorageAwayError(
        f"the storage does not answer: {error.strerror or error}", where=str(path), hint=hint_for(error.errno)
    )


def _open_twice(path: Path) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return files().open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EIO, errno.ESTALE):
            raise
        for directory in (path.parent.parent, path.parent):  # an NFS client looks again at what it lists
            with contextlib.suppress(OSError):
                os.listdir(directory)
        return files().open(path, flags)


@contextlib.contextmanager
def open_file(path: Path, generation: str) -> Iterator[int]:
    """As `open_regular`, closed at the end of the block."""
    fd = open_regular(path, generation)
    try:
        yield fd
    finally:
        files().close(fd)


def read_whole(fd: int, generation: str, *, past_cache: bool = False) -> bytes:
    """All bytes of an open file.

    Raises:
        DamagedError: a read failed.
        StorageAwayError: the storage cannot be reached.
    """
    data = bytearray(os.fstat(fd).st_size)
    if past_cache:
        files().drop_cache(fd, 0, len(data))
    try:
        return bytes(memoryview(data)[: pread_exactly(fd, memoryview(data), 0)])
    except OSError as error:
        if is_away(error.errno):
            raise away(error, generation) from error
        raise DamagedError(f"a read failed: {error.strerror}", where=generation, generation=generation) from error


def read_unit(fd: int, unit: Unit, *, into: Bytes | None = None, past_cache: bool = False) -> Bytes | None:
    """The unit's bytes (in `into` if given, of the unit's length), or None when the file ends before it.

    Raises:
        OSError: a read failed.
    """
    if past_cache:
        files().drop_cache(fd, unit.offset, unit.end - unit.offset)
    target = np.empty(unit.nbytes, dtype=np.uint8) if into is None else into
    group = max(1, _SPAN_BYTES // unit.stride) if unit.run < _SPAN_BELOW else 1
    for first in range(0, unit.count, group):
        count = min(group, unit.count - first)
        piece = target[first * unit.run : (first + count) * unit.run]
        if not _read_runs(fd, unit, unit.offset + first * unit.stride, count, piece):
            return None
    return target


def _read_runs(fd: int, unit: Unit, offset: int, count: int, target: Bytes) -> bool:
    """Read `count` runs from `offset` on, next to each other into `target`; False at the end of the file."""
    if count == 1:
        return pread_exactly(fd, target.data, offset) == unit.run
    span = np.empty((count - 1) * unit.stride + unit.run, dtype=np.uint8)
    if pread_exactly(fd, span.data, offset) < len(span):
        return False
    runs = np.lib.stride_tricks.as_strided(span, (count, unit.run), (unit.stride, 1), writeable=False)
    target.reshape(count, unit.run)[:] = runs
    return True
