"""The newest values that a run has logged, read from the end of a file that may be very long."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hpcresume.observe.ledger_reader import MetricRecord, as_metric

__all__ = ["last_metrics"]

TAIL = 16 * 1024
"""Bytes from the end in which a line of metrics is looked for."""


def last_metrics(path: Path) -> MetricRecord | None:
    """The newest whole line of a file of metrics, None without any.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            data = file.read()
    except FileNotFoundError:
        return None
    for line in reversed(data.split(b"\n")[:-1]):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        record = as_metric(value) if isinstance(value, dict) else None
        if record is not None:
            return record
    return None
