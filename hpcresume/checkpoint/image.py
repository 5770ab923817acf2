"""A file in memory of which only the written pages exist: libhdf5 lays its skeleton out here and touches no disk.

So no error of the filesystem ever meets libhdf5, which would swallow some of them and then never let go of the file;
and its bytes are digested as it made them. Knows nothing of HDF5.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["SparseImage"]

_PAGE = 4096
_PIECE_PAGES = 256


class SparseImage:
    """As much of a binary file object as h5py's fileobj driver uses.

    Attributes:
        size: bytes of the file.
    """

    def __init__(self) -> None:
        self.size = 0
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset` from the start, the position or the end; return the new position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def flush(self) -> None:
        """Nothing to do."""

    def truncate(self, size: int) -> int:
        """Set the size; what lies beyond is not forgotten, since HDF5 only ever grows a new file."""
        self.size = size
        return size

    def write(self, data: memoryview) -> int:
        """Write at the position and move behind it."""
        view = memoryview(data).cast("B")
        for page, begin, end, at in _pages(self._position, len(view)):
            self._pages.setdefault(page, bytearray(_PAGE))[begin:end] = view[at : at + end - begin]
        self._position += len(view)
        if len(view):
            self.size = max(self.size, self._position)
        return len(view)

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` from the position and move behind it; unwritten bytes are zeros."""
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, fewer at the end of the file."""
        length = max(0, min(length, self.size - offset))
        parts = []
        for page, begin, end, _ in _pages(offset, length):
            parts.append(self._pages[page][begin:end] if page in self._pages else bytes(end - begin))
        return b"".join(parts)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of what was written, ascending, in pieces of at most 1 MiB of neighbouring pages."""
        pages = sorted(self._pages)
        first = 0
        for i, page in enumerate(pages):
            following = pages[i + 1] if i + 1 < len(pages) else None
            if following != page + 1 or following - pages[first] >= _PIECE_PAGES:
                begin = pages[first] * _PAGE
                yield begin, self.read_at(begin, (page + 1) * _PAGE - begin)
                first = i + 1


def _pages(offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """Page, first and last place in it, and position in the data, of each page that a range touches."""
    at = 0
    while at < length:
        page, begin = divmod(offset + at, _PAGE)
        end = min(_PAGE, begin + length - at)
        yield page, begin, end, at
        at += end - begin
