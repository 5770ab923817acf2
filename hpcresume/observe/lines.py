"""Reads files of JSON lines that another process may still be writing, or died while writing.

Owns the tolerance: a torn last line is no error, and a damaged line costs that line only. Knows no event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["JsonObject", "LineTail", "Lines", "read_json_object", "read_lines"]

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Lines:
    """The objects of a file in its order, and how many lines were no JSON object (a torn one included)."""

    objects: tuple[JsonObject, ...] = ()
    damaged: int = 0


def _parse(line: bytes) -> JsonObject | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_lines(path: Path) -> Lines:
    """Read the whole file; a missing one has no lines.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Lines()
    parsed = [_parse(line) for line in data.split(b"\n") if line.strip()]
    objects = tuple(each for each in parsed if each is not None)
    return Lines(objects, len(parsed) - len(objects))


def read_json_object(path: Path) -> JsonObject:
    """The object in a file of one JSON object; empty when the file is missing or is no such thing."""
    try:
        return _parse(path.read_bytes()) or {}
    except FileNotFoundError:
        return {}


class LineTail:
    """Follows one growing file: every call of `poll` gives the lines completed since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def poll(self) -> list[JsonObject]:
        """Objects of the new complete lines; an unfinished line waits for its end."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        parsed = (_parse(line) for line in complete.split(b"\n") if line.strip())
        return [each for each in parsed if each is not None]
