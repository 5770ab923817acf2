"""Rank 0's view of when to save next: what was asked for, what saves cost, what the run has been through.

Owns the choice of "auto" and tells the ledger of it. Knows no vote and saves nothing.
"""

from __future__ import annotations

import statistics
from typing import Final

from hpcresume.io.paths import RunPaths
from hpcresume.io.timings import read_exposure, read_timings
from hpcresume.model import Emit, Event
from hpcresume.policy.cadence import Auto, Cadence, SaveHistory, choose_interval, save_is_due
from hpcresume.policy.failures import Exposure, mean_time
from hpcresume.session.saver import Saver

__all__ = ["Rhythm"]

TOLD: Final = 0.1
"""Another choice of "auto" is told when it differs from the one told last by more than this share of it."""


class Rhythm:
    """When rank 0 wants a save."""

    def __init__(self, cadence: Cadence, emit: Emit) -> None:
        self.cadence = cadence
        self._emit = emit
        self._past = Exposure()
        self._saves: tuple[float, ...] = ()
        self._began = 0.0
        self._told: float | None = None

    def begin(self, run: RunPaths, attempt: int, now: float) -> None:
        """The steps begin. Only "auto" asks what became of the attempts before."""
        self._began = now
        if isinstance(self.cadence, Auto):
            self._past = read_exposure(run, attempt)
            self._saves = read_timings(run).saves

    def wants_save(self, step: int, saver: Saver, now: float) -> bool:
        """Shall a save begin after `step` finished steps? `now` is of the saver's clock."""
        cost, mean = self._cost(saver), self._mean_time(now)
        if isinstance(self.cadence, Auto):
            self._tell(self.cadence, cost, now)
        history = SaveHistory(saver.tried_step, now - saver.tried_at, saver.failures, cost, mean)
        return save_is_due(self.cadence, step, history)

    def _cost(self, saver: Saver) -> float | None:
        """What a save takes: the median of the last few, of earlier attempts until this one has saved."""
        values = saver.recent or self._saves
        return statistics.median(values) if values else None

    def _seen(self, now: float) -> Exposure:
        return self._past + Exposure(0, max(0.0, now - self._began))

    def _mean_time(self, now: float) -> float:
        return mean_time(self._seen(now))

    def _tell(self, auto: Auto, cost: float | None, now: float) -> None:
        chosen = choose_interval(auto, cost, self._mean_time(now))
        if self._told is not None and abs(chosen.seconds - self._told) <= TOLD * self._told:
            return
        self._told = chosen.seconds
        seen = self._seen(now)
        fields = {"seconds": chosen.seconds, "why": chosen.why, "save_seconds": cost,
                  "mean_time": self._mean_time(now), "failures": seen.failures, "worked": seen.seconds}  # fmt: skip
        self._emit(Event("cadence", fields))
