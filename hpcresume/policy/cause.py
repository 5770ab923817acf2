"""Why an attempt ended: from evidence to a `Cause` with its reasons. Pure.

The order is from who knows best to who guesses: the scheduler's own state, then what the session decided,
then what the supervisor was told by signals, then how the ranks died.
"""

from __future__ import annotations

from collections.abc import Callable

from hpcresume.errors import RunError
from hpcresume.model import EXIT_COME_BACK, EXIT_HOLD, Cause, Decision
from hpcresume.policy.evidence import (
    AT_WORK,
    ENDS_JOB,
    TOGETHER,
    WARNS,
    ChildExit,
    Ending,
    Evidence,
    Raised,
    SessionDecision,
    SignalReceived,
    signal_name,
)
from hpcresume.policy.job_facts import JobFacts

__all__ = [
    "ENDS_JOB",
    "ChildExit",
    "Ending",
    "Evidence",
    "Raised",
    "SessionDecision",
    "SignalReceived",
    "cause_of_state",
    "directory_is_away",
    "name_cause",
]

SOON_SECONDS = 1800.0
"""A warning this close to the time limit is taken as the limit's own. `--signal` allows up to 65535 s of lead,
so the last quarter of the limit counts too; Slurm may send it 60 s early (sbatch(1))."""
SOON_FRACTION = 0.25
EARLIEST = 90.0
"""Seconds by which the limit's warning may come before the time that the job asked for: 60 s (sbatch(1)), and 30 s
between two looks of Slurm's at the limits. What comes earlier is somebody else's."""

SLACK = 2.0
"""Seconds: Slurm tells instants in whole seconds, and acts on them a moment later."""
_CAUSE_OF_STATE = {
    "NODE_FAIL": Cause.NODE_FAILURE,
    "BOOT_FAIL": Cause.NODE_FAILURE,
    "OUT_OF_MEMORY": Cause.OUT_OF_MEMORY,
    "CANCELLED": Cause.OPERATOR,
    "PREEMPTED": Cause.PREEMPTED,
    "TIMEOUT": Cause.WALLTIME,
    "DEADLINE": Cause.WALLTIME,
}
"""Slurm's job states that name a cause (squeue(1), JOB STATE CODES)."""
_CAUSE_OF_REASON = {"TimeLimit": Cause.WALLTIME, "NodeDown": Cause.NODE_FAILURE, "OutOfMemory": Cause.OUT_OF_MEMORY}
_LEAVING = frozenset({"COMPLETING", "PENDING", "REQUEUED"})
"""While a job is being ended its state says no more than this, whatever ended it (seen on 22.05): at the time
limit Reason=TimeLimit, after scancel nothing else; Restarts has risen already when Slurm will start it again."""


def name_cause(evidence: Evidence) -> Ending:
    """Why the attempt ended (or is about to, while `child` is None)."""
    for rule in _RULES:
        found = rule(evidence)
        if found is not None:
            return Ending(found.cause, (*found.evidence, *_common(evidence)))
    return Ending(Cause.UNKNOWN, ("nothing says why", *_common(evidence)))


def _finished(e: Evidence) -> Ending | None:
    if e.decision is not None and e.decision.decision is Decision.DONE:
        return Ending(Cause.DONE, (f"the session finished: {e.decision.reason or 'all steps done'}",))
    if e.decision is None and not e.claimed and e.child is not None and e.child.clean:
        return Ending(Cause.DONE, ("the ranks exited 0 and opened no session",))
    return None


def _overtaken(e: Evidence) -> Ending | None:
    """Slurm took the node of this start for lost, and it lived on (split brain)."""
    if any(job.restarts > e.restarts for job in e.job) and (e.overtaken or e.restarted):
        return Ending(Cause.NODE_FAILURE, ("Slurm has started the job again while this start of it still lived",))
    if e.overtaken:
        return Ending(Cause.UNKNOWN, ("a newer attempt of the run has begun while this one still lived",))
    return None


def _slurm_state(e: Evidence) -> Ending | None:
    # Open MPI 5's mpiexec exits 0 when it has lost a node.
    died = e.child is not None and e.decision is None and (e.claimed or not e.child.clean)
    own = _programs_own(e)
    for job in e.job:
        if job.down_nodes and (died or job.state != "RUNNING") and not own:
            return Ending(Cause.NODE_FAILURE, (f"Slurm: down: {', '.join(job.down_nodes)}",))
        if job.silent_nodes and died and not own:
            return Ending(Cause.NODE_FAILURE, (f"{', '.join(job.silent_nodes)} does not answer any more",))
        cause = _CAUSE_OF_STATE.get(job.state)
        if cause is None and job.state in _LEAVING:
            cause = _CAUSE_OF_REASON.get(job.reason)
        if cause is not None and not (own and cause is Cause.NODE_FAILURE):
            return Ending(cause, (f"Slurm: JobState={job.state} Reason={job.reason}",))
    return None


def cause_of_state(state: str) -> Cause | None:
    """The cause that one of Slurm's last states of a job names; None where it names none, as FAILED does."""
    return _CAUSE_OF_STATE.get(state)


def _programs_own(e: Evidence) -> bool:
    """Did the program raise for reasons of its own: before anything was seen of a lost node, and not on that node?

    Then a node that is lost as well, or that cannot be reached from here at all, is not what ended the training.
    """
    if e.decision is not None or e.raised is None or e.raised.is_echo or e.raised.type in _STORAGE_ERRORS:
        return False
    lost = [(job.asked_at, {*job.down_nodes, *job.silent_nodes}) for job in e.job]
    first = min((asked_at for asked_at, nodes in lost if nodes and asked_at), default=None)
    if first is not None and e.raised.at is not None and first < e.raised.at:
        return False
    host = (e.raised.host or "").partition(".")[0]
    return not any(host == node.partition(".")[0] for _, nodes in lost for node in nodes)


def _script_died_of_warning(e: Evidence) -> Ending | None:
    """A script without a trap, submitit's for instance, dies of a warning that goes to the batch script."""
    if not e.script_died_of_warning:
        return None
    job, words = e.job[0], f"the batch script died of the warning ({signal_name(e.job[0].killed_by or 0)})"
    if job.being_preempted:
        return Ending(Cause.PREEMPTED, (f"{words} of a preemption (PreemptTime is set)",))
    return Ending(Cause.OPERATOR, (f"{words}, and Slurm names no preemption",))


def _cancelled(e: Evidence) -> Ending | None:
    """Slurm ends the job and will not start it again, though it may: scancel, in the grace of a preemption too."""
    job = e.job[0] if e.job else None
    if job is None or job.state not in _LEAVING or job.restarts > e.restarts or job.requeueable is False:
        return None
    if _grace_was_over(e, job):
        return None  # PreemptMode=CANCEL: Slurm preempts and starts nothing again (slurm.conf(5))
    return Ending(Cause.OPERATOR, ("ended by Slurm and not requeued, as scancel does",)) if e.told_to_end else None


def _grace_was_over(e: Evidence, job: JobFacts) -> bool:
    """Was the job ended when its preemption had to end it, and not by a person before that?"""
    ends = [s.at for s in e.signals if s.signal in ENDS_JOB]
    if not ends or job.preempted_at is None or not job.being_preempted:
        return False
    planned = [each.end for each in e.job if each.state in AT_WORK and each.being_preempted and each.end is not None]
    if planned:
        return ends[0] >= planned[0] - SLACK
    return ends[0] <= job.preempted_at + SLACK  # nobody saw a grace: there was none


def _interrupted(e: Evidence) -> Ending | None:
    return Ending(Cause.OPERATOR, ("interrupted from the keyboard (SIGINT)",)) if e.interrupted else None


def _memory(e: Evidence) -> Ending | None:
    if e.out_of_memory and not _deliberate(e):  # a helper process that was killed, and the training went on
        return Ending(Cause.OUT_OF_MEMORY, e.out_of_memory)
    if e.decision is None and e.raised is not None and _wants_memory(e.raised):
        return Ending(Cause.OUT_OF_MEMORY, (_said(e.raised),))
    return None


def _wants_memory(raised: Raised) -> bool:
    """Python's own, numpy's and torch's errors by name; others (CUDA, XLA) say it in their message only."""
    return raised.type in _MEMORY_ERRORS or "out of memory" in raised.message.lower()


def directory_is_away(e: Evidence) -> bool:
    """Could a job that trained before not begin this time, because of its run's directory (exit code 73)? Then the
    filesystem is away, or another job of the run is still at work, and both pass.
    """
    asked = e.decision.exit_code if e.decision is not None else None
    exited = e.child.code if e.child is not None else None
    return not e.claimed and (e.again or e.restarts > 0) and RunError.exit_code in (asked, exited)


def _stopped_for_storage(e: Evidence) -> Ending | None:
    if directory_is_away(e):
        said = e.decision.reason if e.decision is not None else f"exit code {RunError.exit_code}"
        return Ending(Cause.STORAGE, (f"the run's directory, which was good before, could not be used: {said}",))
    if e.decision is not None and e.decision.cause_hint is Cause.STORAGE:
        return Ending(Cause.STORAGE, (f"the session stopped: {e.decision.reason}",))
    if e.decision is None and e.raised is not None and e.raised.type in _STORAGE_ERRORS:
        return Ending(Cause.STORAGE, (_said(e.raised),))
    return None


def _raised(e: Evidence) -> Ending | None:
    if e.decision is None and e.raised is not None:
        return Ending(Cause.CRASH, (_said(e.raised),))
    return None


def _preempted(e: Evidence) -> Ending | None:
    """Ranks that end without a word while Slurm preempts the job were ended by that: Open MPI's daemons die of the TERM
    and of the USR1 that Slurm sends to their step, and mpiexec then exits 0.
    """
    if not any(job.being_preempted for job in e.job) or not (e.warning or e.decision is None or _deliberate(e)):
        return None
    return Ending(Cause.PREEMPTED, ("Slurm has chosen the job for preemption (PreemptTime is set)",))


def _time_limit(e: Evidence) -> Ending | None:
    job = next((job for job in e.job if job.end is not None), None)
    if job is None or job.end is None or e.warning is None or job.state in _LEAVING:
        return None
    left = job.end - e.warning.at
    limit = job.end - job.start if job.start is not None else 0.0
    early = max(SOON_SECONDS, SOON_FRACTION * limit) if job.warning_lead is None else job.warning_lead + EARLIEST
    if e.warning is not e.clock and (left > early or (job.warns_batch and not e.signals)):
        return None  # somebody else's: the limit's comes later, or goes to the batch script and not to the ranks alone
    return Ending(Cause.WALLTIME, (f"warned {left:.0f} s before the time limit, and Slurm names no preemption",))


def _came_before(warning: SignalReceived, end: float) -> bool:
    """Was it a warning, and not the end sequence itself, which reaches ranks and supervisor one after the other?"""
    return warning.at < (end - TOGETHER if warning.signal in ENDS_JOB else end)


def _ended_by_slurm(e: Evidence) -> Ending | None:
    """Slurm is ending the job, no node is down, no limit reached: preempted, cancelled, or requeued by a person."""
    leaving = next((job for job in e.job if job.state in _LEAVING), None)
    if leaving is None:
        return None
    again = leaving.restarts > e.restarts
    ends = [s.at for s in e.signals if s.signal in ENDS_JOB]
    end = min(ends, default=float("inf"))
    # With GraceTime=0 both come within milliseconds, on 24.11 the end first at times (seen). What the ranks hear after
    # an end may be ours, who pass it on as a warning; what the supervisor hears is Slurm's.
    warned_too = any(s.signal in WARNS and s.at <= end + TOGETHER for s in e.signals)
    if again and (warned_too or any(_came_before(each, end) for each in e.heard)):
        return Ending(Cause.PREEMPTED, ("warned, then ended by Slurm, which starts the job again",))
    if e.told_to_end:
        return Ending(Cause.OPERATOR, ("ended by Slurm without any warning, as scontrol requeue does",))
    if e.child is not None and not e.child.clean:
        return Ending(Cause.NODE_FAILURE, (f"Slurm: JobState={leaving.state}, and the ranks died first",))
    return None


def _stuck_in_files(e: Evidence) -> Ending | None:
    """A rank that hangs in a filesystem cannot say so; those that wait for it can."""
    if e.stuck and e.decision is None and e.child is not None and not e.told_to_end:
        return Ending(Cause.STORAGE, (e.stuck,))
    return None


def _warned(e: Evidence) -> Ending | None:
    """A warning was followed, and nobody says whose it was."""
    if e.warning is None or not (_deliberate(e) or e.child is None):
        return None
    hint = e.decision.cause_hint if e.decision is not None else None
    if hint is Cause.WALLTIME and e.answered:
        hint = None  # the session's guess, from the end in its environment; Slurm's own words were looked at before
    cause = hint or (Cause.OPERATOR if e.answered else Cause.PREEMPTED)
    who = "Slurm plans no end" if e.answered else "Slurm could not be asked"
    return Ending(cause, (f"warned by {signal_name(e.warning.signal)}; {who}",))


def _decided(e: Evidence) -> Ending | None:
    if e.decision is None:
        return None
    return Ending(e.decision.cause_hint or Cause.UNKNOWN, (f"the session stopped: {e.decision.reason}",))


def _died(e: Evidence) -> Ending | None:
    if e.child is None:
        return None
    if e.child.clean:  # claimed, and nothing decided
        if e.kind == "mpiexec":
            words = "mpiexec ended with exit code 0 before the run was finished, as Open MPI's does without its daemons"
            return Ending(Cause.UNKNOWN, (words,))
        return Ending(Cause.CRASH, ("the program ended with exit code 0 before the run was finished",))
    if e.signals and e.signals[-1].signal in ENDS_JOB and not e.slurm_goes_on:
        if e.job and not e.answered:
            return Ending(Cause.UNKNOWN, ("the scheduler ended the job, and Slurm could not be asked why",))
        return Ending(Cause.OPERATOR, ("the scheduler ended the job and names no reason",))
    return Ending(Cause.CRASH, (f"the ranks ended with {e.child} and left no decision",))


_RULES: tuple[Callable[[Evidence], Ending | None], ...] = (
    _finished,
    _interrupted,
    _overtaken,
    _slurm_state,
    _script_died_of_warning,
    _cancelled,
    _memory,
    _stopped_for_storage,
    _raised,
    _preempted,
    _time_limit,
    _ended_by_slurm,
    _stuck_in_files,
    _warned,
    _decided,
    _died,
)

_MEMORY_ERRORS = frozenset({"MemoryError", "_ArrayMemoryError", "OutOfMemoryError"})
_STORAGE_ERRORS = frozenset(
    {"SaveError", "NoSpaceError", "DamagedError", "NoUsableGenerationError", "StorageAwayError"}
)


def _deliberate(e: Evidence) -> bool:
    if e.decision is not None:
        return e.decision.decision is Decision.COME_BACK
    return e.child is not None and e.child.code == EXIT_COME_BACK


def _common(e: Evidence) -> tuple[str, ...]:
    lines = [f"received {signal_name(s.signal)}" for s in e.signals[:4]]
    lines += ["warned by our own clock"] if e.clock is not None else []
    lines += [f"the ranks received {signal_name(s.signal)}" for s in e.rank_warnings[:1] if not e.signals]
    if e.decision is not None:
        lines.append(f"the session decided {e.decision.decision.value} at step {e.decision.step}")
    if e.child is not None:
        lines.append(f"the ranks' launcher ended with {e.child}")
    if e.child is not None and e.child.code == EXIT_HOLD:
        lines.append(f"{EXIT_HOLD} is reserved for: do not requeue")
    return tuple(lines)


def _said(raised: Raised) -> str:
    where = "" if raised.rank is None else f" on rank {raised.rank}"
    when = "" if raised.step is None else f" at step {raised.step}"
    return f"{raised.type}{where}{when}: {raised.message}"[:500]
