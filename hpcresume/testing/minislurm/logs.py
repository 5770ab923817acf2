"""The last words of daemons that failed, for an error's message."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

__all__ = ["complaints", "tails"]

_COMPLAINT = re.compile(r"\b(fatal|error|cannot|unable|failed|denied|address already in use)\b", re.IGNORECASE)
_TAIL = 65536


def complaints(folder: Path, daemon: str, *, most: int = 3) -> str:
    """The last lines of a daemon's logs that complain, else the last ones; "" where it said nothing."""
    text = next(filter(str.strip, map(_end, _logs_of(folder, daemon))), "")
    lines = [line for line in text.splitlines() if line.strip()]
    chosen = [line for line in lines if _COMPLAINT.search(line)] or lines
    return "; ".join(line.strip()[:300] for line in chosen[-most:])


def tails(folder: Path, characters: int = 1500) -> str:
    """The ends of all logs, for a person."""
    texts = []
    with contextlib.suppress(OSError):
        texts = [f"--- {name}\n{_end(folder / name)[-characters:]}" for name in sorted(os.listdir(folder))]
    return "\n".join(texts)


def _logs_of(folder: Path, daemon: str) -> list[Path]:
    """What it printed, else the log that its configuration names."""
    names = (f"{daemon}.out", f"{daemon}.log", f"slurmd-{daemon}.log")
    return [folder / name for name in names]


def _end(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
