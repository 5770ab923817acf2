"""Our own clock: it tells the ranks in time where Slurm's signal would come too late for a save, or not at all.

`--signal` is fixed when a job is submitted; what a save takes is known later, and `scontrol update` cannot change it
("Update of this parameter is not supported: Signal", seen on 22.05 and 24.11). The end of the allocation is known too:
Slurm's EndTime counts from the allocation's start, however long the batch script took to come to us.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcresume.io.paths import RunPaths
from hpcresume.io.timings import read_timings
from hpcresume.policy.job_facts import JobFacts
from hpcresume.policy.lead import Lead, Timings, needed, needed_lead

__all__ = ["EarlyWarning", "Look", "Short", "too_short"]

REREAD = 30.0
REREAD_SOON = 3.0
"""Seconds between looks at what the run has measured; the shorter one near the end."""
NEAR = 600.0
"""Seconds before the end, or twice the lead."""
FRESH = 30.0
"""Seconds for which Slurm's word on the end is believed. Older, it is asked once more before the ranks are told: the
limit may have been raised."""
ANSWER = 5.0
"""Seconds for that answer: it is asked for so long before it is needed, and a warning waits no longer for it."""
MOST_FIXED = 0.5
"""Of an allocation, for a lead that was asked for: a start that is shorter than the lead would do no step at all."""
CHANGED = 0.2
"""A lead that differs by more than this share from the one told last is told again."""


@dataclass(frozen=True)
class Look:
    """What the clock says.

    Attributes:
        lead: how long before the end the ranks are told, None while nothing is measured.
        news: is this lead to be told to people?
        ask: Slurm is to be asked afresh.
        warn: the ranks are to be told now.
        left: seconds until the end.
    """

    lead: Lead | None = None
    news: bool = False
    ask: bool = False
    warn: bool = False
    left: float = 0.0


class EarlyWarning:
    """Looks at the clock for one attempt."""

    def __init__(self, fixed: float | None = None) -> None:
        """`fixed` seconds before the end, 0 for never; None: as the run's own measures say."""
        self._fixed = fixed
        self._read_at = float("-inf")
        self._timings = Timings()
        self._told: float | None = None
        self._asked: float | None = None

    def look(self, run: RunPaths, job: JobFacts, now: float) -> Look:
        """Is it time?

        Args:
            run: the run whose measures count.
            job: Slurm's newest words.
            now: our clock, seconds since the epoch.
        """
        if job.end is None or job.state != "RUNNING" or self._fixed == 0:
            return Look()
        lead = self._lead(run, job, now)
        if lead is None:
            return Look()
        left, news = job.end - now, self._told is None or abs(lead.seconds - self._told) > CHANGED * self._told
        if news:
            self._told = lead.seconds
        if left > lead.seconds + ANSWER:
            self._asked = None
            return Look(lead, news, left=left)
        waits, ask = now - job.asked_at > FRESH, False
        if waits and self._asked is None:
            ask, self._asked = True, now
        waits = waits and self._asked is not None and now - self._asked < ANSWER
        return Look(lead, news, ask=ask, warn=left <= lead.seconds and not waits, left=left)

    def _lead(self, run: RunPaths, job: JobFacts, now: float) -> Lead | None:
        if self._fixed is not None:
            most = MOST_FIXED * (job.end - job.start) if job.end and job.start else self._fixed
            cut = f", cut to half of an allocation of {2 * most:.0f} s" if most < self._fixed else ""
            return Lead(min(self._fixed, most), f"as --warn-before asks{cut}")
        if now - self._read_at >= self._pause(job, now):
            self._read_at, self._timings = now, read_timings(run)
        return needed_lead(self._timings, job.end - job.start if job.end and job.start else None)

    def _pause(self, job: JobFacts, now: float) -> float:
        near = max(NEAR, 2 * (self._told or 0.0))
        return REREAD_SOON if job.end is not None and job.end - now < near else REREAD


@dataclass(frozen=True)
class Short:
    """An allocation that is of no use. Seconds.

    Attributes:
        left: of the allocation when the supervisor began.
        needed: to begin, to work one step, to save it and to leave.
        setup: from the allocation's start to the supervisor's, None when not known.
    """

    left: float
    needed: float
    setup: float | None = None

    def __str__(self) -> str:
        setup = f", after {self.setup:.0f} s of set-up" if self.setup is not None and self.setup >= 1 else ""
        return (
            f"this allocation had {self.left:.0f} s left{setup}, and to begin, to work a step and to save it takes "
            f"{self.needed:.0f} s: it may come to nothing"
        )


def too_short(run: RunPaths, job: JobFacts, started: float) -> Short | None:
    """Whether an allocation cannot be of use, as far as the run has measured what it needs; None when it can.

    Args:
        run: the run.
        job: Slurm's words.
        started: when the supervisor began, seconds since the epoch.
    """
    need = needed(read_timings(run))
    if need is None or job.end is None or job.state != "RUNNING" or job.end - started >= need:
        return None
    return Short(job.end - started, need, started - job.start if job.start is not None else None)
