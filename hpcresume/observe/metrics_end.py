"""The first and the newest values that an attempt has logged, read from both ends of a file that may be very long."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from hpcresume.observe.ledger_reader import MetricRecord, as_metric

__all__ = ["last_metrics", "metrics_ends"]

END = 64 * 1024
"""Bytes at each end in which a line of metrics is looked for."""


def last_metrics(path: Path) -> MetricRecord | None:
    """The newest whole line of a file of metrics, None without any.

    Raises:
        OSError: the file is there and cannot be read.
    """
    return _first(reversed(_lines(path)[1]))


def metrics_ends(path: Path) -> tuple[MetricRecord, ...]:
    """The first and the newest whole line of a file of metrics; none without any, one where they are the same.

    Raises:
        OSError: the file is there and cannot be read.
    """
    head, tail = _lines(path)
    first, last = _first(head), _first(reversed(tail))
    return tuple(each for each in (first if first != last else None, last) if each is not None)


def _lines(path: Path) -> tuple[list[bytes], list[bytes]]:
    """The lines at the beginning and those at the end, each without one that may still be written or is cut."""
    try:
        with path.open("rb") as file:
            head = file.read(END)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END))
            tail = file.read()
    except FileNotFoundError:
        return [], []
    return head.split(b"\n")[:-1], tail.split(b"\n")[:-1]


def _first(lines: Iterable[bytes]) -> MetricRecord | None:
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        record = as_metric(value) if isinstance(value, dict) else None
        if record is not None:
            return record
    return None
