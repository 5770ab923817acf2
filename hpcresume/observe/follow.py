"""Follows a run while it is being written: every new event and metric since the last look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.observe.ledger_reader import MetricRecord, Record, as_metric, as_record
from hpcresume.observe.lines import LineTail

__all__ = ["RunFollower", "Update"]


@dataclass(frozen=True)
class Update:
    """Something new: the attempt, who wrote it ("session", "supervisor" or "metrics"), and the record."""

    attempt: int
    source: str
    record: Record | MetricRecord

    @property
    def t(self) -> float:
        """Unix seconds at which it was written."""
        return self.record.t


_SOURCES: dict[str, Callable[[AttemptPaths], LineTail]] = {
    "session": lambda paths: LineTail(paths.ledger),
    "supervisor": lambda paths: LineTail(paths.supervisor),
    "metrics": lambda paths: LineTail(paths.metrics),
}


@dataclass
class RunFollower:
    """Looks at the files of all attempts of `run`; not for use by two threads at once.

    `sources` are those of interest: of a long run the metrics are by far the most.
    """

    run: RunPaths
    sources: tuple[str, ...] = ("session", "supervisor", "metrics")
    _tails: dict[tuple[int, str], LineTail] = field(default_factory=dict)

    def poll(self) -> list[Update]:
        """What was written since the last call, ordered by time.

        Raises:
            OSError: a file is there and cannot be read.
        """
        updates: list[Update] = []
        for number in self.run.attempt_numbers():
            for source in self.sources:
                tail = self._tails.setdefault((number, source), _SOURCES[source](self.run.attempt(number)))
                updates.extend(_updates(number, source, tail))
        return sorted(updates, key=lambda update: update.t)


def _updates(attempt: int, source: str, tail: LineTail) -> list[Update]:
    found = []
    for line in tail.poll():
        record = as_metric(line) if source == "metrics" else as_record(line)
        if record is not None:
            found.append(Update(attempt, source, record))
    return found
