"""What a run is doing, and what happens next, in plain words. Pure: from a glance at its files and Slurm's word.

Slurm is believed for what its queue holds, the run's own files for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hpcresume.model import Cause
from hpcresume.observe.figures import span
from hpcresume.observe.glance import Glance, Newest
from hpcresume.observe.instants import time_of_day
from hpcresume.slurm.queue import QueuedJob

__all__ = ["NEEDS_SOMEBODY", "STATES", "Known", "RunState", "judge"]

STATES: Final = ("running", "pending", "requeued", "held", "ended", "done", "idle", "new", "unknown", "unreadable")
"""running; in the queue for the first time, or again; held until somebody looks; over without being finished;
finished; saved to by `hr.save` alone; never submitted; Slurm would have to say and cannot be asked; not to be read."""

NEEDS_SOMEBODY: Final = frozenset({"held", "ended", "unknown", "unreadable"})
"""States that do not end by themselves."""

NEVER: Final = "DependencyNeverSatisfied"
"""Slurm's reason for a job that waits for one that has failed."""

SILENT: Final = 120.0
"""Seconds without a change in its files after which an attempt that nobody can be asked about counts as gone; the
session writes a sign of life far more often."""


@dataclass(frozen=True)
class Known:
    """What is known of a run beside its files.

    Attributes:
        job: the run's job as squeue shows it, None when it is not there.
        job_id: the job that was asked for, None when the run has none.
        asked: did Slurm answer?
        alive: does the process of rank 0 live on this machine? None: it ran elsewhere.
        submitted: was something submitted after the newest attempt began?
        waits_for: the stages before this one that are not done, where the run is a stage of a chain.
        now: our clock, seconds since the epoch.
    """

    job: QueuedJob | None = None
    job_id: str | None = None
    asked: bool = False
    alive: bool | None = None
    submitted: bool = False
    waits_for: tuple[str, ...] = ()
    now: float = 0.0


@dataclass(frozen=True)
class RunState:
    """One of `STATES`; what is going on, and what happens next or is to be done: one sentence each."""

    state: str
    doing: str
    next: str


def judge(seen: Glance, known: Known) -> RunState:
    """What a run is doing."""
    if seen.problem:
        return RunState("unreadable", seen.problem, "look at the directory")
    job = known.job
    if seen.done:
        return _done(seen, job)
    if job is not None and job.active:
        return _running(seen, known, job)
    if job is not None and job.waiting:
        return _waiting(seen, known, job)
    if seen.newest is not None and seen.newest.holder is not None and not seen.newest.holder.holds:
        return RunState("idle", "saved by hr.save, outside of any session", "nothing to do")
    if known.alive:
        return RunState("running", f"on this machine{_warned(seen.newest)}", "nothing to do")
    if seen.newest is None:
        return _never_began(known)
    return _not_in_the_queue(seen.newest, known)


def _done(seen: Glance, job: QueuedJob | None) -> RunState:
    step = seen.done_facts.get("step")
    doing = f"finished at step {step}" if isinstance(step, int) else "finished"
    if job is not None and not job.over:
        doing += f"; job {job.id} is still {job.state.lower()} and ends without doing anything"
    return RunState("done", doing, "nothing to do")


def _running(seen: Glance, known: Known, job: QueuedJob) -> RunState:
    newest, where = seen.newest, f"job {job.id}{f' on {job.nodes}' if job.nodes else ''}"
    if job.state in ("SUSPENDED", "STOPPED"):
        return RunState("running", f"{where} is suspended by Slurm", "goes on when Slurm lets it")
    if job.state in ("COMPLETING", "STAGE_OUT"):
        return RunState("running", f"{where} is ending{_warned(newest)}", "Slurm or the supervisor decides in seconds")
    if not _has_begun(newest, job):
        since = f" for {span(known.now - job.start)}" if job.start is not None else ""
        return RunState("running", f"{where} is starting{since}: no rank has begun yet", "nothing to do")
    left = f", {span(job.end - known.now)} left" if job.end is not None and job.end > known.now else ""
    if left and newest is not None and newest.lead is not None and not newest.warned:
        left += f", told to save {span(newest.lead)} before the end"
    return RunState("running", f"{where}{left}{_warned(newest)}", "nothing to do")


def _has_begun(newest: Newest | None, job: QueuedJob) -> bool:
    """Is the newest attempt of this life of the job? Clocks may differ by seconds, a requeue lasts longer."""
    if newest is None or newest.holder is None or newest.holder.job_id != job.id:
        return False
    return job.start is None or newest.claimed_at is None or newest.claimed_at >= job.start - 5.0


def _warned(newest: Newest | None) -> str:
    return "; warned, it saves and stops" if newest is not None and newest.warned and not newest.ended else ""


def _waiting(seen: Glance, known: Known, job: QueuedJob) -> RunState:
    newest = seen.newest
    if known.waits_for and (job.held or job.reason in ("Dependency", NEVER)):
        return _behind_stages(known, job)
    held_by_us = newest is not None and newest.decided == "hold" and not known.submitted
    if job.held:
        why = _held_because(newest) if held_by_us and newest is not None else f"job {job.id} is {_reason(job.reason)}"
        return RunState("held", why, f"{'hpcresume why RUN, then ' if held_by_us else ''}hpcresume requeue RUN")
    state = "pending" if newest is None else "requeued"
    again = "" if newest is None else _after(newest)
    start = ""
    if job.start is not None and job.start > known.now:
        start = f", expected to start in {span(job.start - known.now)}, at {time_of_day(job.start, known.now)}"
    following = "starts by itself" if not _never_starts(job.reason) else "scontrol show job says more; or cancel it"
    return RunState(state, f"job {job.id} {_reason(job.reason)}{start}{again}", following)


def _behind_stages(known: Known, job: QueuedJob) -> RunState:
    """A stage whose predecessors are not done. Who has to look, looks there."""
    names = " and ".join(known.waits_for)
    if job.held:
        return RunState("held", f"job {job.id} is held, and {names} is not done", "hpcresume requeue CHAIN")
    if job.reason == NEVER:
        what = f"job {job.id} never starts: {names} failed (DependencyNeverSatisfied)"
        return RunState("held", what, "hpcresume requeue CHAIN")
    return RunState("pending", f"job {job.id} waits for {names}", "starts by itself")


def _held_because(newest: Newest) -> str:
    return newest.reason.removeprefix("held: ") or f"attempt {newest.attempt} asked for it"


def _after(newest: Newest) -> str:
    cause = newest.cause.value if newest.cause is not None else ""
    return f"; attempt {newest.attempt} ended: {cause}" if cause else ""


def _never_began(known: Known) -> RunState:
    if known.job_id is None:
        return RunState("new", "nothing was submitted or started", "hpcresume submit, or start it")
    if not known.asked:
        return RunState("unknown", f"job {known.job_id} was submitted; Slurm cannot be asked", "ask where Slurm is")
    how = f" ({known.job.state})" if known.job is not None else ""
    doing = f"job {known.job_id} is over{how} and no attempt began"
    return RunState("ended", doing, "hpcresume logs RUN, then hpcresume requeue RUN")


def _not_in_the_queue(newest: Newest, known: Known) -> RunState:
    """Its job is over or forgotten, or it has none, or Slurm cannot be asked."""
    if not known.asked and known.submitted:
        return RunState("unknown", f"job {known.job_id} was submitted; Slurm cannot be asked", "ask where Slurm is")
    if newest.decided == "hold" and not known.submitted:
        return RunState("held", _held_because(newest), "hpcresume why RUN, then hpcresume requeue RUN")
    silence = known.now - newest.last_sign
    can_tell = known.asked or known.alive is False or (newest.ended and newest.requeue != "accepted")
    if not can_tell and silence < SILENT:
        where = f" on {newest.holder.host}" if newest.holder is not None else ""
        return RunState("running", f"wrote something {span(silence)} ago{where}{_warned(newest)}", "nothing to do")
    if not can_tell and newest.holder is not None and newest.holder.job_id is not None:
        doing = f"Slurm cannot be asked; attempt {newest.attempt} wrote nothing for {span(silence)}"
        return RunState("unknown", doing, "ask where Slurm is")
    again = "hpcresume requeue RUN" if known.job_id is not None else "start it again by the same command"
    return RunState("ended", _how_it_ended(newest, known), again)


def _how_it_ended(newest: Newest, known: Known) -> str:
    job = known.job
    slurm = f"; job {job.id} is {job.state}" if job is not None else ""
    if newest.cause is None:
        silence = span(known.now - newest.last_sign)
        return f"attempt {newest.attempt} left no word, its last sign of life is {silence} old{slurm}"
    evidence = f" ({newest.evidence[0]})" if newest.evidence and newest.cause is not Cause.DONE else ""
    return f"attempt {newest.attempt}: {newest.cause.value}{evidence}{slurm}"


_WORDS: Final = {
    "": "waits",
    "Resources": "waits for free nodes",
    "Priority": "waits behind jobs of higher priority",
    "BeginTime": "waits for the time from which it may start",
    "Dependency": "waits for another job",
    NEVER: "never starts: the job that it depends on failed",
    "BadConstraints": "never starts: no node can fulfil what it asks for",
    "PartitionTimeLimit": "does not start: it asks for more time than its partition allows",
    "PartitionNodeLimit": "does not start: it asks for more nodes than its partition allows",
    "PartitionDown": "waits: its partition is down",
    "PartitionInactive": "waits: its partition starts no jobs",
    "ReqNodeNotAvail": "waits for nodes that are down, drained or reserved",
    "Reservation": "waits for its reservation",
    "ReqNodeNotAvail, Reserved for maintenance": "waits for the end of a maintenance, into which it would run",
    "Licenses": "waits for licences",
    "Cleaning": "is being cleaned up after its last start",
    "JobHeldUser": "held in the queue by its owner",
    "JobHeldAdmin": "held in the queue by an administrator, who alone can release it",
    "job requeued in held state": "back in the queue and held there",
    "launch failed requeued held": "held: Slurm could not start it",
    "JobArrayTaskLimit": "waits for other tasks of its array",
}
"""Slurm's reasons (squeue(1), JOB REASON CODES)."""


def _reason(reason: str) -> str:
    plain = reason.replace("_", " ")
    words = _WORDS.get(reason) or _WORDS.get(plain)
    if words is None and reason.startswith(("QOS", "Assoc", "MaxJobs")):
        words = "waits: a limit of its account or QOS is reached"
    if words is None:
        return f"waits ({reason})"
    return f"{words} ({reason})" if reason and plain == reason and " " not in reason else words


def _never_starts(reason: str) -> bool:
    return reason in ("DependencyNeverSatisfied", "BadConstraints", "PartitionTimeLimit", "PartitionNodeLimit")
