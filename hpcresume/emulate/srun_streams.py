"""The streams of srun's tasks: standard input for all of them, labelled output, names of files. Knows no step.

Standard library only, run by path beside `srun_program`.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Pipe", "StandardInput", "fill", "is_null", "ready_now", "write_all"]

MOST_WAITING = 1 << 20
"""Bytes of standard input that wait for a slow task before no more is read."""


class Pipe:
    """A labelled stream: where its lines go, whose they are, and what is no whole line yet."""

    def __init__(self, target: int, rank: int) -> None:
        self.target = target
        self.rank = rank
        self.rest = b""


class StandardInput:
    """Srun's own standard input, copied to every task that wants it. A task that does not read holds nobody up."""

    def __init__(self) -> None:
        self.open = False
        self._waiting: dict[int, bytearray] = {}

    def pipe(self) -> int:
        """A new task's end of a pipe; it is to be closed here once the task has it."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        self._waiting[write] = bytearray()
        self.open = True
        return read

    def __contains__(self, fd: int) -> bool:
        return fd in self._waiting

    def full(self) -> list[int]:
        """Pipes for which something waits."""
        return [fd for fd, data in self._waiting.items() if data]

    def hungry(self) -> bool:
        """Shall more be read? Not while one has too much before it."""
        return self.open and all(len(data) < MOST_WAITING for data in self._waiting.values())

    def feed(self) -> None:
        """Read some, and give it to all."""
        data = os.read(0, 65536)
        self.open = bool(data)
        for fd in list(self._waiting):
            self._waiting[fd] += data
            self.pour(fd)
        self.open = self.open and bool(self._waiting)

    def pour(self, fd: int) -> None:
        """As much as the task's pipe takes now."""
        data = self._waiting[fd]
        try:
            if data:
                del data[: os.write(fd, data)]
        except BlockingIOError:
            return
        except OSError:
            data.clear()  # the task reads no more
            self._close(fd)
            return
        if not data and not self.open:
            self._close(fd)

    def _close(self, fd: int) -> None:
        os.close(fd)
        del self._waiting[fd]


def ready_now(readers: Sequence[int], writers: Sequence[int], timeout: float) -> list[int]:
    """Descriptors of which something can be said; poll(2), since select(2) knows none above 1023."""
    look = select.poll()
    for fd in readers:
        look.register(fd, select.POLLIN)
    for fd in writers:
        look.register(fd, select.POLLOUT)
    return [fd for fd, _ in look.poll(timeout * 1000)]


def is_null(fd: int) -> bool:
    """Is it /dev/null, or closed?"""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    except OSError:
        return True


def fill(pattern: str, letters: Mapping[str, str]) -> str:
    """File name pattern of srun; as `filenames.file_name`, which this program cannot import."""
    text, at = "", 0
    while at < len(pattern):
        end = at + 1
        if pattern[at] != "%":
            text, at = text + pattern[at], end
            continue
        while end < len(pattern) and pattern[end].isdecimal():
            end += 1
        letter = pattern[end : end + 1]
        if letter == "%":
            text += "%"
        elif letter in letters:
            value = letters[letter]
            text += value.zfill(min(int(pattern[at + 1 : end] or 0), 10)) if value.isdecimal() else value
        else:
            text += pattern[at : end + 1]
        at = end + 1
    return text


def write_all(fd: int, data: bytes) -> None:
    """All of it; what reads no more gets no more."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError:
            return
