"""Shows jobs' logs while they are written: one job's as they come, several jobs' line by line with their number."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["Followers", "size_of"]

_PIECE = 1 << 20


class _Log:
    """One file that is being written."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path = path
        self.offset = offset
        self.rest = b""

    def read(self) -> bytes:
        """What is new."""
        try:
            with self.path.open("rb") as file:
                info = os.fstat(file.fileno())
                if not stat.S_ISREG(info.st_mode):
                    return b""
                # A log that the job itself truncated begins anew.
                self.offset = min(self.offset, info.st_size)
                file.seek(self.offset)
                data = file.read(_PIECE)
        except OSError:
            return b""
        self.offset += len(data)
        return data


class Followers:
    """All logs that are followed; `output` gets them, None for nobody."""

    def __init__(self, output: BinaryIO | None) -> None:
        self._output = output
        self._logs: dict[str, list[_Log]] = {}
        self._seen: set[str] = set()

    def start(self, job: str, paths: tuple[Path, ...], *, append: bool) -> None:
        """A job is about to write into these files; with `append` what they hold already is old."""
        self.end(job)
        self._seen.add(job)
        self._logs[job] = [_Log(path, size_of(path) if append else 0) for path in dict.fromkeys(paths)]

    def end(self, job: str) -> None:
        """The job has written its last."""
        for log in self._logs.get(job, ()):
            while self._pump(job, log):
                pass
            if log.rest:
                self._write(self._label(job) + log.rest + b"\n")
        self._logs.pop(job, None)

    def pump(self) -> None:
        """Show what is new."""
        if self._output is not None:
            for job, logs in self._logs.items():
                for log in logs:
                    self._pump(job, log)

    def _pump(self, job: str, log: _Log) -> bool:
        data = log.read()
        if not data:
            return False
        if len(self._seen) == 1 and not log.rest:
            self._write(data)
            return True
        lines = (log.rest + data).split(b"\n")
        log.rest = lines.pop()
        self._write(b"".join(self._label(job) + line + b"\n" for line in lines))
        return True

    def _label(self, job: str) -> bytes:
        return f"{job}: ".encode() if len(self._seen) > 1 else b""

    def _write(self, data: bytes) -> None:
        if self._output is not None:
            self._output.write(data)
            self._output.flush()


def size_of(path: Path) -> int:
    """Bytes of a file, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
