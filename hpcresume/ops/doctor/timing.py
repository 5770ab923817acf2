"""Whether the time that Slurm leaves is enough for a save, by what this run has measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpcresume.ops.doctor.finding import Finding, bad, ok, unknown, warn
from hpcresume.policy.deadline import LEAVING, UNREAD, Plan, TimeLeft, choose
from hpcresume.policy.lead import Lead, Timings, needed_lead, percentile

__all__ = ["Measured", "lead_for", "time_findings"]

AREA = "time"
USUAL_LEAD = 120
"""Seconds that are advised where no save was measured, and at the least: a quick save today is a slow one tomorrow."""
HARD_END = 5.0
"""KillWait is at least so long (slurm.conf(5))."""

_SHORTER = (
    "save more often (every=…), so that less is lost; or make the save shorter: more nodes write more, "
    "track only what cannot be computed anew"
)


@dataclass(frozen=True)
class Measured:
    """What the ledgers of a run tell: seconds of saves and steps, and the bytes of its newest generation."""

    timings: Timings = field(default_factory=Timings)
    nbytes: int | None = None

    @property
    def lead(self) -> Lead | None:
        """What a warning must leave, None while no save was measured."""
        return needed_lead(self.timings)


def lead_for(measured: Measured) -> int:
    """Seconds for `--signal` that are enough by what was measured, in whole tens."""
    lead = measured.lead
    return USUAL_LEAD if lead is None else max(USUAL_LEAD, math.ceil(lead.seconds / 10) * 10)


def time_findings(
    measured: Measured, *, mode: str, grace: float | None, kill_wait: float | None, asked: float | None, limited: bool
) -> Iterator[Finding]:
    """Grace and lead against what a save takes.

    Args:
        measured: of the run; empty without one.
        mode: what a preemption does, as `cluster.preempt_mode` says.
        grace: GraceTime in seconds, None when not known.
        kill_wait: KillWait in seconds, None when not known.
        asked: seconds of the job's `--signal`, None when it has none or it is not known.
        limited: has the job a time limit at all?
    """
    if measured.lead is None:
        what, hint = "no save was measured yet", "hpcresume doctor RUN, when the run has saved once"
        yield unknown(AREA, "time of a save", what, hint)
    else:
        yield ok(AREA, "time of a save", f"{measured.lead.why}; a warning must leave {measured.lead.seconds:g} s")
    if mode not in ("OFF", "SUSPEND", ""):
        yield _grace(measured, grace, kill_wait)
    if limited:
        yield _limit(measured, asked)


def _grace(measured: Measured, grace: float | None, kill_wait: float | None) -> Finding:
    name = "grace of a preemption"
    if grace is None:
        return unknown(AREA, name, "the grace of a preemption is not known", "hpcresume doctor --partition NAME")
    seconds, has = grace, f"grace {grace:g} s"
    if grace == 0:
        seconds = max(HARD_END, kill_wait or 0.0)
        has = f"GraceTime=0: a preempted job is ended at once, KillWait leaves {seconds:g} s"
    if measured.lead is not None:
        return _enough(name, has, seconds, measured, measured.lead)
    if grace == 0:
        return warn(AREA, name, f"{has}; what a longer save was for is lost", _SHORTER)
    return unknown(AREA, name, f"{has}; how long a save takes is not known yet")


def _enough(name: str, has: str, seconds: float, measured: Measured, lead: Lead) -> Finding:
    save = percentile(measured.timings.saves, 0.95)
    takes = f"{has}, a save takes {save:.3g} s"
    left = max(0.0, seconds - (measured.timings.longest_step or 0.0))
    plan = choose(TimeLeft(left, save))
    if plan is Plan.SAVE and seconds >= lead.seconds:
        return ok(AREA, name, takes)
    ask = f"{_SHORTER}; or ask for GraceTime={math.ceil(lead.seconds)}"
    if plan is Plan.SAVE:
        return warn(AREA, name, f"{takes}, which fits with nothing to spare ({lead.seconds:g} s with a margin)", ask)
    if plan is Plan.SAVE_WITHOUT_READ_BACK and left - LEAVING >= UNREAD * save:
        return warn(AREA, name, f"{takes}: the last one would be committed without reading it back", ask)
    return bad(AREA, name, f"{takes}: a preemption loses what was done since the last save", ask)


def _limit(measured: Measured, asked: float | None) -> Finding:
    name, advised = "lead of the time limit", lead_for(measured)
    if asked is None:
        what = "no --signal is known of its script: only the supervisor's own clock warns before the limit"
        return warn(AREA, name, what, f"#SBATCH --signal=B:USR1@{advised} and hpcresume launch")
    has = f"--signal warns {asked:g} s before the limit, or up to 60 s earlier"
    if measured.lead is None:
        return unknown(AREA, name, f"{has}; how long a save takes is not known yet")
    if asked >= measured.lead.seconds:
        return ok(AREA, name, f"{has}; {measured.lead.seconds:g} s are needed")
    what = f"{has}, and {measured.lead.seconds:g} s are needed: the supervisor must warn by its own clock"
    return warn(AREA, name, what, f"#SBATCH --signal=B:USR1@{advised}")
