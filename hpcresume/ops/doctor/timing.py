"""Whether the time that Slurm leaves is enough for a save, by what this run has measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpcresume.ops.doctor.finding import Finding, ok, unknown, warn
from hpcresume.policy.deadline import LEAVING, UNREAD, Plan, TimeLeft, choose
from hpcresume.policy.lead import Lead, Timings, needed_lead, percentile

__all__ = ["Measured", "Weighed", "hard_seconds", "lead_for", "time_findings", "weigh"]

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
        yield _grace(measured, mode, grace, kill_wait)
    if limited:
        yield _limit(measured, asked)


def _grace(measured: Measured, mode: str, grace: float | None, kill_wait: float | None) -> Finding:
    name = "grace of a preemption"
    if grace is None:
        hint = "sacctmgr show qos format=name,gracetime" if mode == "QOS" else "hpcresume doctor --partition NAME"
        return unknown(AREA, name, "the grace of a preemption is not known", hint)
    seconds, has = grace, f"grace {grace:g} s"
    if grace == 0:
        seconds = hard_seconds(kill_wait)
        has = f"GraceTime=0: a preempted job is ended at once, KillWait leaves {seconds:g} s"
    weighed = weigh(seconds, measured)
    if weighed is not None:
        return Finding(AREA, name, weighed.verdict, f"{has}, {weighed.words}", weighed.hint)
    if grace == 0:
        return warn(AREA, name, f"{has}; what a longer save was for is lost", _SHORTER)
    return unknown(AREA, name, f"{has}; how long a save takes is not known yet")


def hard_seconds(kill_wait: float | None) -> float:
    """What GraceTime=0 leaves: TERM at once, and KILL after KillWait."""
    return max(HARD_END, kill_wait or 0.0)


@dataclass(frozen=True)
class Weighed:
    """Whether some seconds are enough for the last save: one of the verdicts of a finding, what a save takes and what
    that means, and what to try.
    """

    verdict: str
    words: str
    hint: str = ""


def weigh(seconds: float, measured: Measured, *, setting: str = "GraceTime") -> Weighed | None:
    """Is so much time between warning and end enough, by what the run has measured? None while it has not saved.

    `setting` is the one of Slurm's that gives the time.
    """
    lead = measured.lead
    if lead is None:
        return None
    save = percentile(measured.timings.saves, 0.95)
    takes = f"a save takes {save:.3g} s"
    left = max(0.0, seconds - (measured.timings.longest_step or 0.0))
    plan = choose(TimeLeft(left, save))
    if plan is Plan.SAVE and seconds >= lead.seconds:
        return Weighed("ok", takes)
    ask = f"{_SHORTER}; or ask for {setting}={math.ceil(lead.seconds)}"
    if plan is Plan.SAVE:
        return Weighed("warn", f"{takes}, which fits with nothing to spare ({lead.seconds:g} s with a margin)", ask)
    if plan is Plan.SAVE_WITHOUT_READ_BACK and left - LEAVING >= UNREAD * save:
        return Weighed("warn", f"{takes}: the last one would be committed without reading it back", ask)
    return Weighed("bad", f"{takes}: a preemption loses what was done since the last save", ask)


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
