"""Why an attempt ended: from evidence to a `Cause` with its reasons. Pure.

The order is from who knows best to who guesses: the scheduler's own state, then what the session decided,
then what the supervisor was told by signals, then how the ranks died.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from hpcresume.errors import RunError
from hpcresume.model import EXIT_COME_BACK, EXIT_DONE, EXIT_HOLD, Cause, Decision
from hpcresume.policy.job_facts import JobFacts

__all__ = [
    "ENDS_JOB",
    "ChildExit",
    "Ending",
    "Evidence",
    "Raised",
    "SessionDecision",
    "SignalReceived",
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
FAR = 120.0
"""Seconds: an end that is nearer may be the one that was meant, by a clock that differs."""
TOGETHER = 1.0
"""Seconds. Slurm ends steps and batch script one after the other; mpiexec's daemons, which are a step, die at once."""

ENDS_JOB = frozenset({int(signal.SIGTERM), int(signal.SIGHUP)})
"""What the batch script gets when the job is being ended, KILL to follow."""
_WARNS = frozenset({int(signal.SIGUSR1), int(signal.SIGUSR2)})
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
_AT_WORK = frozenset({"RUNNING", "CONFIGURING", "SUSPENDED"})
"""It has its nodes, and nobody is ending it: after a restart these are another start's than one that still lives."""
_LEAVING = frozenset({"COMPLETING", "PENDING", "REQUEUED"})
"""While a job is being ended its state says no more than this, whatever ended it (seen on 22.05): at the time
limit Reason=TimeLimit, after scancel nothing else; Restarts has risen already when Slurm will start it again."""


@dataclass(frozen=True)
class SessionDecision:
    """What the session left in decision.json after its last commit."""

    decision: Decision
    reason: str = ""
    step: int | None = None
    generation: str | None = None
    cause_hint: Cause | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class ChildExit:
    """How the command that ran the ranks ended: an exit code, or the signal that killed it."""

    code: int | None = None
    signal: int | None = None

    @property
    def clean(self) -> bool:
        """Exit code 0."""
        return self.code == EXIT_DONE

    @property
    def killed_by(self) -> int | None:
        """The signal that killed the launcher, or a rank when the launcher says so by 128 + n (srun, mpiexec)."""
        if self.signal is not None:
            return self.signal
        return self.code - 128 if self.code is not None and 128 < self.code < 128 + 65 else None

    @property
    def status(self) -> int:
        """As a shell shows it: the code, or 128 + signal."""
        return 128 + (self.signal or 0) if self.code is None else self.code

    def __str__(self) -> str:
        killer = self.killed_by
        return f"exit code {self.status}" + (f" ({_signal_name(killer)})" if killer else "")


@dataclass(frozen=True)
class SignalReceived:
    """A signal that the supervisor got, and when (seconds since the epoch)."""

    signal: int
    at: float


@dataclass(frozen=True)
class Raised:
    """An exception that ended the training, as the session recorded it."""

    type: str
    message: str = ""
    rank: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class Evidence:
    """All that is known when an attempt ends. Absent things are None or empty.

    Attributes:
        claimed: a session began, so that the attempt has a directory.
        decision: what the session decided.
        child: how the ranks' launcher ended; None while it still runs.
        child_at: when that was, seconds since the epoch.
        signals: what the supervisor received, in order, SIGCONT left out.
        rank_warnings: what the ranks received themselves, as their session recorded it.
        clock: our own warning, by the clock, where Slurm's would have come too late or not at all.
        job: Slurm's words, the newest first.
        raised: the exception that the session recorded.
        stuck: which ranks did not come out of work on files, in words; "" when none is known to hang there.
        out_of_memory: what shows that the kernel killed for memory.
        interrupted: somebody pressed Ctrl-C.
        restarts: how often Slurm had started the job before this attempt.
        again: this is no beginning: a restart, or a job that was submitted to go on where another was lost.
        kind: what started the ranks: "srun", "mpiexec", "torchrun", "direct", or "" where nothing of ours did.
        overtaken: a newer attempt of the run has begun while this one was still at work.
    """

    claimed: bool = False
    decision: SessionDecision | None = None
    child: ChildExit | None = None
    child_at: float | None = None
    signals: tuple[SignalReceived, ...] = ()
    rank_warnings: tuple[SignalReceived, ...] = ()
    clock: SignalReceived | None = None
    job: tuple[JobFacts, ...] = ()
    raised: Raised | None = None
    stuck: str = ""
    out_of_memory: tuple[str, ...] = ()
    interrupted: bool = False
    restarts: int = 0
    again: bool = False
    kind: str = ""
    overtaken: bool = False

    @property
    def restarted(self) -> bool:
        """Does the job run again already, though this start of it has not ended?"""
        return any(job.restarts > self.restarts and job.state in _AT_WORK for job in self.job)

    @property
    def script_died_of_warning(self) -> bool:
        """Did the batch script die of USR1 or USR2, which ends the job?"""
        return bool(self.job) and self.job[0].state != "RUNNING" and self.job[0].killed_by in _WARNS

    @property
    def warning(self) -> SignalReceived | None:
        """The first signal that said that time is short, whoever got it (`--signal` without B: goes to the ranks)."""
        return min(self.heard, key=lambda each: each.at, default=None)

    @property
    def heard(self) -> tuple[SignalReceived, ...]:
        """All signals, whoever got them, and our own warning."""
        ours = (self.clock,) if self.clock is not None else ()
        return (*self.signals, *self.rank_warnings, *ours)

    @property
    def slurm_goes_on(self) -> bool:
        """Does Slurm, asked after the first signal that ends a job, still run it with an end that is far?

        Then the signal was not Slurm's: a node that is shut down, say, sends TERM to all that runs on it.
        """
        ends = [s.at for s in self.signals if s.signal in ENDS_JOB]
        job = self.job[0] if self.job else None
        if not ends or job is None or job.asked_at < ends[0] or job.state != "RUNNING" or job.being_preempted:
            return False
        return job.restarts == self.restarts and (job.end is None or job.end > job.asked_at + FAR)

    @property
    def told_to_end(self) -> bool:
        """Did the scheduler's end sequence reach the supervisor before the ranks had ended, or with their end?"""
        ends = [s.at for s in self.signals if s.signal in ENDS_JOB]
        return bool(ends) and (self.child_at is None or ends[0] <= self.child_at + TOGETHER)


@dataclass(frozen=True)
class Ending:
    """A cause and the evidence for it, one sentence each."""

    cause: Cause
    evidence: tuple[str, ...] = field(default=())


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
    for job in e.job:
        if job.down_nodes and (died or job.state != "RUNNING"):
            return Ending(Cause.NODE_FAILURE, (f"Slurm: down: {', '.join(job.down_nodes)}",))
        if job.silent_nodes and died:
            return Ending(Cause.NODE_FAILURE, (f"{', '.join(job.silent_nodes)} does not answer any more",))
        cause = _CAUSE_OF_STATE.get(job.state)
        if cause is None and job.state in _LEAVING:
            cause = _CAUSE_OF_REASON.get(job.reason)
        if cause is not None:
            return Ending(cause, (f"Slurm: JobState={job.state} Reason={job.reason}",))
    return None


def _script_died_of_warning(e: Evidence) -> Ending | None:
    """A script without a trap, submitit's for instance, dies of a warning that goes to the batch script."""
    if not e.script_died_of_warning:
        return None
    job, words = e.job[0], f"the batch script died of the warning ({_signal_name(e.job[0].killed_by or 0)})"
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
    planned = [each.end for each in e.job if each.state in _AT_WORK and each.being_preempted and each.end is not None]
    if planned:
        return ends[0] >= planned[0] - SLACK
    return ends[0] <= job.preempted_at + SLACK  # nobody saw a grace: there was none


def _interrupted(e: Evidence) -> Ending | None:
    return Ending(Cause.OPERATOR, ("interrupted from the keyboard (SIGINT)",)) if e.interrupted else None


def _memory(e: Evidence) -> Ending | None:
    if e.out_of_memory:
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
    if again and any(_came_before(each, end) for each in e.heard):
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
    if hint is Cause.WALLTIME and e.job:
        hint = None  # the session's guess, from the end in its environment; Slurm's own words were looked at before
    cause = hint or (Cause.OPERATOR if e.job else Cause.PREEMPTED)
    who = "Slurm plans no end" if e.job else "Slurm could not be asked"
    return Ending(cause, (f"warned by {_signal_name(e.warning.signal)}; {who}",))


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
    lines = [f"received {_signal_name(s.signal)}" for s in e.signals[:4]]
    lines += ["warned by our own clock"] if e.clock is not None else []
    lines += [f"the ranks received {_signal_name(s.signal)}" for s in e.rank_warnings[:1] if not e.signals]
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


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
