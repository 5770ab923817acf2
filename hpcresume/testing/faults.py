"""A filesystem that fails where a test says: an error, a short write, or the death of the process at any call.

Owns the log of what was asked of the disk. Sees what goes through `io.files.Files`, which is everything but what
MPI-IO writes by itself.

    faulty = FaultyFiles(fail_at=7, error=errno.EIO)
    with substituted(faulty), pytest.raises(SaveError):
        hr.save(run, state, step=1)
    faulty.assert_fired()
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hpcresume.io.files import Files

__all__ = ["Call", "FaultyFiles", "SimulatedCrash"]

T = TypeVar("T")

_CREATES = os.O_CREAT | os.O_TRUNC
_WRITES = os.O_WRONLY | os.O_RDWR
_WRITE_CALLS = ("pwrite", "append")


class SimulatedCrash(BaseException):
    """The process died here. No handler of `Exception` may survive it, and nothing more reaches the disk."""


@dataclass(frozen=True)
class Call:
    """One state-changing call: its number from 0, its name, the path it concerned, and its second path or size."""

    number: int
    name: str
    path: str
    detail: str = ""


class FaultyFiles(Files):
    """The real filesystem until state-changing call number `fail_at` (from 0); None only records.

    Args:
        fail_at: which call fails.
        error: an errno; "short" (a write puts half of its bytes and says so; other calls are not changed); or
            "crash", after which every state-changing call raises `SimulatedCrash` and does nothing.
        once: False makes every later call fail in the same way ("for good").
        after: the call is carried out and then fails, as one whose answer was lost. For `error="crash"` that is
            the death right after it.
        only: count only calls of these names, for instance ("fsync",).

    Attributes:
        log: every state-changing call so far, those that failed included.
        fired: how many calls were made to fail.
    """

    def __init__(
        self,
        fail_at: int | None = None,
        error: int | str = errno.EIO,
        *,
        once: bool = True,
        after: bool = False,
        only: tuple[str, ...] = (),
    ) -> None:
        if isinstance(error, str) and error not in ("crash", "short"):
            raise ValueError(f"no error {error!r}")
        self.fail_at = fail_at
        self.error = error
        self.once = once
        self.after = after
        self.only = only
        self.log: list[Call] = []
        self.fired = 0
        self._counted = 0
        self._crashed = False
        self._paths: dict[int, tuple[str, bool]] = {}
        self._lock = threading.RLock()

    def assert_fired(self) -> None:
        """Fail the test when the fault never happened."""
        assert self.fired, f"the fault at call {self.fail_at} never happened; there were {len(self.log)} calls"

    def names(self) -> list[str]:
        """The names of the calls so far."""
        return [call.name for call in self.log]

    def _is_due(self, name: str) -> bool:
        """Count the call, and say whether it is to fail."""
        if self.only and name not in self.only:
            return False
        number, self._counted = self._counted, self._counted + 1
        if self.fail_at is None or number < self.fail_at:
            return False
        return number == self.fail_at or not self.once

    def _changing(self, name: str, path: str, act: Callable[[], T], detail: str = "") -> T:
        with self._lock:
            if self._crashed:
                raise SimulatedCrash(f"{name} after the crash")
            call = Call(len(self.log), name, path, detail)
            self.log.append(call)
            due = self._is_due(name) and self.error != "short"
            if not due:
                return act()
            self.fired += 1
            if self.after:
                act()
            self._crashed = self.error == "crash"
            raise self._fault(call)

    def _fault(self, call: Call) -> BaseException:
        if isinstance(self.error, int):
            return OSError(self.error, os.strerror(self.error), call.path)
        return SimulatedCrash(f"at call {call.number}: {call.name} {call.path} {call.detail}")

    def _writing(self, name: str, fd: int, data: bytes | memoryview, act: Callable[[int], int], at: str) -> int:
        """A write that puts as many bytes as `act` is told."""
        with self._lock:
            length = len(data)
            if self.error == "short" and length > 1 and self._next_is_due(name):
                self.fired += 1
                length = max(1, length // 2)
            return self._changing(name, self._path(fd), lambda: act(length), f"{length} bytes at {at}")

    def _next_is_due(self, name: str) -> bool:
        counted = self._counted
        due = self._is_due(name)
        self._counted = counted
        return due

    def _path(self, fd: int) -> str:
        return self._paths.get(fd, ("", False))[0]

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """A change if it may create or truncate."""
        if flags & _CREATES:
            fd = self._changing("open", str(path), lambda: Files.open(self, path, flags, mode))
        else:
            fd = super().open(path, flags, mode)
        self._paths[fd] = (str(path), bool(flags & _WRITES))
        return fd

    def close(self, fd: int) -> None:
        """A change if the file was open for writing (NFS reports lost writes here); never leaks the descriptor."""
        path, writable = self._paths.pop(fd, ("", False))
        super().close(fd)
        if writable and not self._crashed:
            self._changing("close", path, lambda: None)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """A change."""
        return self._writing("pwrite", fd, data, lambda n: Files.pwrite(self, fd, data[:n], offset), str(offset))

    def append(self, fd: int, data: bytes) -> int:
        """A change."""
        return self._writing("append", fd, data, lambda n: Files.append(self, fd, data[:n]), "the end")

    def fsync(self, fd: int) -> None:
        """A change: of what a power cut would leave."""
        self._changing("fsync", self._path(fd), lambda: Files.fsync(self, fd))

    def truncate(self, fd: int, size: int) -> None:
        """A change."""
        self._changing("truncate", self._path(fd), lambda: Files.truncate(self, fd, size), str(size))

    def mkdir(self, path: Path, mode: int = 0o700) -> None:
        """A change."""
        self._changing("mkdir", str(path), lambda: Files.mkdir(self, path, mode))

    def rename(self, source: Path, target: Path) -> None:
        """A change."""
        self._changing("rename", str(source), lambda: Files.rename(self, source, target), str(target))

    def link(self, source: Path, target: Path) -> None:
        """A change."""
        self._changing("link", str(source), lambda: Files.link(self, source, target), str(target))

    def unlink(self, path: Path) -> None:
        """A change."""
        self._changing("unlink", str(path), lambda: Files.unlink(self, path))

    def rmdir(self, path: Path) -> None:
        """A change."""
        self._changing("rmdir", str(path), lambda: Files.rmdir(self, path))
