"""The beginning and the end of a file of lines that may be very long, read without what lies between."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["read_ends"]


def read_ends(path: Path, head: int, tail: int) -> tuple[bytes, bytes]:
    """Whole lines from the first `head` bytes, and from the last `tail` bytes; all in the second where that is all.

    The last line may be torn: another process may be writing it.

    Raises:
        OSError: the file is not there, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size <= head + tail:
            return b"", os.pread(descriptor, head + tail, 0)
        first, last = os.pread(descriptor, head, 0), os.pread(descriptor, tail, size - tail)
    finally:
        os.close(descriptor)
    return first[: first.rfind(b"\n") + 1], last[last.find(b"\n") + 1 :]
