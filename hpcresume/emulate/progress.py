"""How far the training is: the newest finished step of the attempt that runs now, read from its progress file."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from hpcresume.io.paths import RunPaths

__all__ = ["ProgressReader"]


class ProgressReader:
    """Follows one attempt. Costs a directory listing until its session has begun, one pread afterwards."""

    def __init__(self, launch_parent: Path) -> None:
        self._parent = launch_parent
        self._file: Path | None = None
        self._fd = -1

    def step(self) -> int:
        """The newest finished step, -1 while none is known."""
        if self._fd < 0 and not self._open():
            return -1
        data = os.pread(self._fd, 8, 0)
        return int(struct.unpack("<q", data)[0]) if len(data) == 8 else -1

    def close(self) -> None:
        """Let the file go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bool:
        if self._file is None:
            self._file = self._find()
        if self._file is not None:
            try:
                self._fd = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
        return self._fd >= 0

    def _find(self) -> Path | None:
        for pointer in self._parent.glob("*/session.json"):
            try:
                facts = json.loads(pointer.read_bytes())
                return RunPaths(Path(facts["run"])).attempt(int(facts["attempt"])).progress
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None
