"""Ledger, supervisor and metrics lines as typed values. Reads only; what they mean is for `history`."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcresume.io.paths import AttemptPaths
from hpcresume.observe.lines import JsonObject, read_lines

__all__ = [
    "MetricRecord",
    "Record",
    "as_metric",
    "as_record",
    "other_ranks",
    "read_ledger",
    "read_metrics",
    "read_supervisor",
]


@dataclass(frozen=True)
class Record:
    """One event of a ledger: unix seconds, the event's name, its fields."""

    t: float
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def number(self, key: str, default: float = 0.0) -> float:
        """A numeric field, or `default` when it is missing or no finite number."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return default
        try:
            number = float(value)
        except OverflowError:
            return default
        return number if math.isfinite(number) else default

    def text(self, key: str) -> str:
        """A text field, or "" when it is missing or null."""
        value = self.fields.get(key)
        return "" if value is None else str(value)

    def signal(self) -> str:
        """The field `signal` by name, whether it was recorded by number or by name."""
        value = self.text("signal")
        try:
            return signal.Signals(int(value)).name
        except ValueError:
            return value


@dataclass(frozen=True)
class MetricRecord:
    """What `s.log` was given for one step: unix seconds and values by name (NaN and infinities too)."""

    step: int
    t: float
    values: Mapping[str, float]


def as_record(line: JsonObject) -> Record | None:
    """One line of a ledger, or None when it has no time or no event."""
    t, event = line.get("t"), line.get("event")
    if not isinstance(t, (int, float)) or not isinstance(event, str) or not -1e12 < t < 1e12:
        return None
    fields = {key: value for key, value in line.items() if key not in ("t", "mono", "event")}
    return Record(float(t), event, fields)


def as_metric(line: JsonObject) -> MetricRecord | None:
    """One line of metrics, or None when it is no such line. Non-finite values are written as strings."""
    step, t, values = line.get("step"), line.get("t"), line.get("values")
    if not isinstance(step, int) or not isinstance(t, (int, float)) or not isinstance(values, dict):
        return None
    numbers = {}
    for name, value in values.items():
        if isinstance(value, (int, float)) or value in ("nan", "inf", "-inf"):
            numbers[str(name)] = float(value)
    return MetricRecord(step, float(t), numbers)


def _records(lines: Iterable[JsonObject]) -> tuple[Record, ...]:
    return tuple(record for record in map(as_record, lines) if record is not None)


def read_ledger(attempt: AttemptPaths) -> tuple[Record, ...]:
    """Events of the attempt's session (rank 0), in order."""
    return _records(read_lines(attempt.ledger).objects)


def other_ranks(attempt: AttemptPaths) -> tuple[Record, ...]:
    """The events of the ranks other than 0, of which most leave none."""
    paths = sorted(attempt.root.glob("ledger.[0-9]*.jsonl"))
    return tuple(record for path in paths for record in _records(read_lines(path).objects))


def read_supervisor(attempt: AttemptPaths) -> tuple[Record, ...]:
    """Events of the attempt's supervisor, in order."""
    return _records(read_lines(attempt.supervisor).objects)


def read_metrics(attempt: AttemptPaths) -> tuple[MetricRecord, ...]:
    """What the attempt logged, one record a step, ascending; a step logged twice is merged."""
    by_step: dict[int, MetricRecord] = {}
    for line in read_lines(attempt.metrics).objects:
        record = as_metric(line)
        if record is not None:
            earlier = by_step.get(record.step)
            values = {**(earlier.values if earlier else {}), **record.values}
            by_step[record.step] = MetricRecord(record.step, record.t, values)
    return tuple(by_step[step] for step in sorted(by_step))
