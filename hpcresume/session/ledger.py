"""What an attempt leaves for readers: events and metrics as JSON lines, and the newest finished step.

One file per writer, append only. Nothing here may end a training: an error is counted, and told once the disk
works again. Knows no rank and decides nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcresume.errors import UntrackableError
from hpcresume.io.files import files
from hpcresume.model import Event

__all__ = ["Ledger", "LineWriter", "Metrics", "Progress"]


class LineWriter:
    """Appends JSON objects to `path`, which is created at the first one.

    Attributes:
        lost: lines that could not be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._torn = False
        self.lost = 0

    def write(self, fields: Mapping[str, Any]) -> None:
        """Append one line. Never raises for the filesystem's sake."""
        line = json.dumps(fields, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            if self._fd < 0:
                self._fd = files().open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            # After a torn line a newline first, so that it costs itself only and not its successor.
            data = b"\n" + line if self._torn else line
            self._torn = files().append(self._fd, data) != len(data)
        except OSError:
            self._torn = True
        self.lost += self._torn

    def sync(self) -> None:
        """Make what was written durable, as far as the disk lets us."""
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                files().fsync(self._fd)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                files().close(self._fd)
        self._fd = -1


class Ledger:
    """The events of one rank."""

    def __init__(self, path: Path) -> None:
        self._lines = LineWriter(path)
        self._told = 0

    def emit(self, event: Event) -> None:
        """Append an event with the time. An `Emit`."""
        if self._lines.lost > self._told:
            self._told = self._lines.lost
            self.emit(Event("ledger-lines-lost", {"count": self._told}))
        head = {"t": time.time(), "mono": time.monotonic(), "event": event.name}
        self._lines.write({**head, **_finite(dict(event.fields))})

    def sync(self) -> None:
        """Make it durable."""
        self._lines.sync()

    def close(self) -> None:
        """Sync and close."""
        self._lines.close()


class Metrics:
    """What the training logs: a line for each call, with the number that the step will have when it is finished."""

    def __init__(self, path: Path) -> None:
        self._lines = LineWriter(path)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append values.

        Raises:
            UntrackableError: a value is no number.
        """
        numbers = {name: _number(name, value) for name, value in values.items()}
        self._lines.write({"step": step, "t": time.time(), "values": numbers})

    def sync(self) -> None:
        """Make it durable."""
        self._lines.sync()

    def close(self) -> None:
        """Sync and close."""
        self._lines.close()


class Progress:
    """The newest finished step in 8 bytes, rewritten in place: about a microsecond a step.

    Not through a memory map: on a full copy-on-write filesystem a store into one ends the process (SIGBUS),
    where a write merely fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = files().open(path, os.O_WRONLY | os.O_CREAT)

    def write(self, step: int) -> None:
        """`step` steps are finished."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                files().pwrite(self._fd, memoryview(struct.pack("<q", step)), 0)

    def beat(self) -> None:
        """Say "still here" through the file's time; called by a background thread."""
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            if fd >= 0:
                files().close(fd)


def _number(name: str, value: Any) -> float | int | str:
    """A JSON number, exact; "nan", "inf" or "-inf" for what JSON lacks."""
    if _is_scalar_array(value):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = type(value).__name__
        hint = "log ints, floats, and 0-d tensors or arrays"
        raise UntrackableError(f"a value of type {kind} cannot be logged", where=f"log {name}", hint=hint)
    return value if isinstance(value, int) or math.isfinite(value) else repr(float(value))


def _is_scalar_array(value: Any) -> bool:
    """A numpy scalar, or an array or tensor of one element; asks torch only if the program has imported it."""
    import numpy as np

    torch = sys.modules.get("torch")
    if isinstance(value, np.generic):
        return True
    is_array = isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))
    return is_array and math.prod(value.shape) == 1


def _finite(value: Any) -> Any:
    """JSON can say no NaN: floats that are none become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
