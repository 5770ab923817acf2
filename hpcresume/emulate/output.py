"""Carries a job's output from its log file to where the user looks, while it is being written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["LogFollower"]


class LogFollower:
    """The job writes into a file of its own, so that neither waits for the other; `pump` copies what is new."""

    def __init__(self, path: Path, output: BinaryIO | None) -> None:
        """Open `path` for appending; `output` gets a copy, None for nobody."""
        self.file = path.open("ab")
        self._reader = path.open("rb")
        self._reader.seek(0, os.SEEK_END)
        self._output = output

    def pump(self) -> None:
        """Copy what was written since the last call."""
        data = self._reader.read()
        if data and self._output is not None:
            self._output.write(data)
            self._output.flush()

    def close(self) -> None:
        """Copy the rest and close."""
        self.pump()
        self.file.close()
        self._reader.close()
