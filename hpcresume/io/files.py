"""Every call that changes the filesystem goes through `Files`, so that tests can make any of them fail.

Knows nothing of runs or generations. Files are 0600 and folders 0700 unless the caller says otherwise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Files", "files", "substituted"]

MAX_CALL = 1 << 30
"""Bytes per read or write call: Linux moves at most 0x7ffff000 bytes at once (write(2))."""


PAGE = os.sysconf("SC_PAGE_SIZE")


class Files:
    """The real filesystem. `hpcresume.testing` subclasses it to inject faults."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """Open `path` and return a descriptor (close-on-exec)."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """Write once at `offset`; may write less than asked."""
        return os.pwrite(fd, data[:MAX_CALL], offset)

    def append(self, fd: int, data: bytes) -> int:
        """Write once at the end of a file opened with O_APPEND; may write less than asked."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """Flush a file or a directory to stable storage. Never retried: after a failure the data is gone."""
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Set the size of a file."""
        os.ftruncate(fd, size)

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        """Make one directory; `FileExistsError` when it is there."""
        os.mkdir(path, mode)

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically."""
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; `FileExistsError` when `target` is there."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove one file."""
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        """Remove one empty directory."""
        os.rmdir(path)

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Read once at `offset`; may read less than asked, 0 at the end of the file."""
        return os.preadv(fd, [buffer[:MAX_CALL]], offset)

    def drop_cache(self, fd: int, offset: int, length: int) -> None:
        """Ask the kernel to forget clean pages, so that the next read comes from the device.

        Pages that the range touches only in part would be kept (posix_fadvise(2)), so it is widened to whole ones.
        """
        begin, end = offset - offset % PAGE, offset + length + -(offset + length) % PAGE
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, begin, end - begin, os.POSIX_FADV_DONTNEED)


_current: list[Files] = [Files()]


def files() -> Files:
    """The filesystem in use."""
    return _current[-1]


@contextlib.contextmanager
def substituted(replacement: Files) -> Iterator[None]:
    """Use `replacement` inside the block (tests only; not for threads that outlive it)."""
    _current.append(replacement)
    try:
        yield
    finally:
        _current.remove(replacement)
