"""The curve of one logged value over the attempts: what counts, and what was lost, kept apart."""

from __future__ import annotations

from dataclasses import dataclass

from hpcresume.io.paths import RunPaths
from hpcresume.observe.history import RunHistory
from hpcresume.observe.ledger_reader import read_metrics

__all__ = ["Curve", "Point", "read_curve"]


@dataclass(frozen=True)
class Point:
    """One logged value: the step, unix seconds, the value, and the attempt that logged it."""

    step: int
    t: float
    value: float
    attempt: int


@dataclass(frozen=True)
class Curve:
    """`kept`: for each step the record of the attempt that owns it, by step; `lost`: the others, by time."""

    kept: tuple[Point, ...]
    lost: tuple[Point, ...]


def read_curve(run: RunPaths, history: RunHistory, name: str = "loss") -> Curve:
    """Read the value `name` of every attempt in `history`.

    Raises:
        OSError: a metrics file is there and cannot be read.
    """
    kept: list[Point] = []
    lost: list[Point] = []
    for attempt in history.attempts:
        for record in read_metrics(run.attempt(attempt.attempt)):
            if name in record.values:
                point = Point(record.step, record.t, record.values[name], attempt.attempt)
                (kept if attempt.owns(record.step) else lost).append(point)
    kept.sort(key=lambda point: point.step)
    lost.sort(key=lambda point: point.t)
    return Curve(tuple(kept), tuple(lost))
