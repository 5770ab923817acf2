"""The supervisor's ledger, `attempts/N/supervisor.jsonl`, and its lines on stderr.

Events that come before the attempt is claimed wait in memory. A journal that cannot be written says so once
and never stops the supervisor: the job matters more than its record.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hpcresume.console import tell
from hpcresume.io.durable import append_line

__all__ = ["Journal", "say"]


def say(text: str) -> None:
    """One line for people, on stderr."""
    tell(f"hpcresume launch: {text}")


class Journal:
    """Events in order, written as soon as there is a file for them."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._waiting: list[dict[str, Any]] = []
        self._complained = False

    def record(self, event: str, **fields: Any) -> None:
        """Add an event; `fields` are JSON values."""
        self._waiting.append({"t": time.time(), "mono": time.monotonic(), "event": event, **fields})
        self._flush()

    def attach(self, path: Path) -> None:
        """From now on (and for all that waited) write to `path`."""
        self._path = path
        self._flush()

    def _flush(self) -> None:
        try:
            while self._path is not None and self._waiting:
                append_line(self._path, self._waiting[0])
                del self._waiting[0]
        except OSError as error:
            if not self._complained:
                say(f"the ledger cannot be written: {error}")
            self._complained = True
