"""Whether the time that a real end leaves would have been enough for the save that a drill has seen. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hpcresume.ops.doctor.given import Given
from hpcresume.ops.doctor.timing import Measured, Weighed, hard_seconds, weigh

__all__ = ["Asked", "Judged", "judge"]


@dataclass(frozen=True)
class Asked:
    """What the job itself has asked for.

    Attributes:
        lead: seconds before the time limit at which its `--signal` warns, None without one.
        supervised: does `hpcresume launch` watch it, which warns by its own clock too?
    """

    lead: float | None = None
    supervised: bool = False


@dataclass(frozen=True)
class Judged:
    """One time that was given, against the one that was used.

    Attributes:
        against: grace, KillWait or lead.
        given: seconds; None where there are none, or nobody could tell.
        used: seconds from the order to the commit; None when no save that began after it was committed.
        verdict: ok, warn (enough this time, and nothing to spare), bad (too little), unknown: as in `hpcresume doctor`.
        what: in one line.
        hint: what to try, "" when there is nothing to do.
    """

    against: str
    given: float | None
    used: float | None
    verdict: str
    what: str
    hint: str = ""


def judge(how: str, used: float | None, given: Given, asked: Asked, measured: Measured) -> tuple[Judged, ...]:
    """Hold the drill against what the cluster gives.

    Args:
        how: warn, requeue or node, as the drill was done; a node that is lost gives no time at all.
        used: seconds from the order to the commit.
        given: by the cluster.
        asked: by the job.
        measured: of the run, the drill's own save among it: one quick save says little about the next one.
    """
    if how == "node":
        return ()
    if how == "requeue":
        return (_kill_wait(used, given, measured),)
    return (_grace(used, given, measured), *_lead(used, asked, measured))


def _grace(used: float | None, given: Given, measured: Measured) -> Judged:
    whose = given.whose or "this cluster"
    if given.mode == "OFF":
        return Judged("grace", None, used, "ok", f"nobody preempts a job of {whose}: there is no grace to compare with")
    if given.mode == "SUSPEND":
        return Judged("grace", None, used, "ok", f"a job of {whose} is preempted by being suspended: it saves nothing")
    if given.grace is None:
        hint = "sacctmgr show qos format=name,gracetime" if given.mode == "QOS" else "scontrol show partition"
        return Judged("grace", None, used, "unknown", "the grace of a preemption is not known", hint)
    if given.grace > 0:
        judged = _compared("grace", used, given.grace, f"the grace of {whose} is {given.grace:g} s", measured)
    else:
        seconds = hard_seconds(given.kill_wait)
        judged = _compared(
            "grace", used, seconds, f"{whose} has GraceTime=0, and KillWait leaves {seconds:g} s", measured
        )
    return judged if given.sends_user_signal is not False else _with_term(judged)


def _with_term(judged: Judged) -> Judged:
    """The drill sent the job's own signal; a preemption on this cluster does not."""
    what = f"{judged.what}; a preemption sends TERM to the ranks here, and not this signal (hpcresume doctor)"
    return Judged(judged.against, judged.given, judged.used, judged.verdict, what, judged.hint)


def _kill_wait(used: float | None, given: Given, measured: Measured) -> Judged:
    if given.kill_wait is None:
        return Judged("KillWait", None, used, "unknown", "KillWait is not known", "scontrol show config")
    seconds = hard_seconds(given.kill_wait)
    return _compared("KillWait", used, seconds, f"KillWait leaves {seconds:g} s after TERM", measured, "KillWait")


def _lead(used: float | None, asked: Asked, measured: Measured) -> Iterator[Judged]:
    """Of the time limit. The supervisor's own clock warns as early as was measured to be needed, whatever was asked."""
    if asked.lead is None:
        return
    has = f"--signal warns {asked.lead:g} s before the time limit"
    judged = _compared("lead", used, asked.lead, has, measured)
    if judged.verdict not in ("warn", "bad"):
        yield judged
    elif asked.supervised:
        what = f"{has}, and hpcresume launch warns earlier by its own clock where that is too late"
        yield Judged("lead", asked.lead, used, "ok", what)
    else:
        needed = _needed(used, measured)
        hint = f"#SBATCH --signal=B:USR1@{needed} and hpcresume launch"
        yield Judged("lead", asked.lead, used, judged.verdict, judged.what, hint)


def _compared(
    against: str, used: float | None, seconds: float, has: str, measured: Measured, setting: str = "GraceTime"
) -> Judged:
    if used is None:
        what = f"{has}; no save that began after the order was committed, so there is nothing to compare"
        return Judged(against, seconds, None, "unknown", what)
    saved, weighed = f"saved after {used:.1f} s", weigh(seconds, measured, setting=setting) or Weighed("ok", "")
    if used > seconds:
        hint = weighed.hint or f"lower the time that a save takes, or ask for {setting}={_needed(used, measured)}"
        return Judged(against, seconds, used, "bad", f"{saved}, and {has}: too little for such a save", hint)
    means = f": {_ratio(seconds, used)} times that" if weighed.verdict == "ok" else f", {weighed.words}"
    return Judged(against, seconds, used, weighed.verdict, f"{saved}; {has}{means}", weighed.hint)


def _needed(used: float | None, measured: Measured) -> int:
    lead = measured.lead
    return math.ceil(max(lead.seconds if lead is not None else 0.0, 1.25 * (used or 0.0)))


def _ratio(seconds: float, used: float) -> str:
    ratio = seconds / max(used, 0.1)
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
