"""What is known when an attempt ends, as frozen values, and what follows from it at once. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from hpcresume.model import EXIT_DONE, Cause, Decision
from hpcresume.policy.job_facts import JobFacts
from hpcresume.policy.lost_peer import is_echo

__all__ = [
    "AT_WORK",
    "ENDS_JOB",
    "TOGETHER",
    "WARNS",
    "ChildExit",
    "Ending",
    "Evidence",
    "Raised",
    "SessionDecision",
    "SignalReceived",
    "signal_name",
]

FAR = 120.0
"""Seconds: an end that is nearer may be the one that was meant, by a clock that differs."""
TOGETHER = 1.0
"""Seconds. Slurm ends steps and batch script one after the other; mpiexec's daemons, which are a step, die at once."""
SKEW = 5.0
"""Seconds by which the clock of a rank's node may be ahead of ours."""

ENDS_JOB = frozenset({int(signal.SIGTERM), int(signal.SIGHUP)})
"""What the batch script gets when the job is being ended, KILL to follow."""
WARNS = frozenset({int(signal.SIGUSR1), int(signal.SIGUSR2)})
"""What says that time is short."""
AT_WORK = frozenset({"RUNNING", "CONFIGURING", "SUSPENDED"})
"""It has its nodes, and nobody is ending it: after a restart these are another start's than one that still lives."""


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
        return f"exit code {self.status}" + (f" ({signal_name(killer)})" if killer else "")


@dataclass(frozen=True)
class SignalReceived:
    """A signal that the supervisor got, and when (seconds since the epoch)."""

    signal: int
    at: float


@dataclass(frozen=True)
class Raised:
    """An exception that ended the training, as the session recorded it: where (rank, step, host) and when."""

    type: str
    message: str = ""
    rank: int | None = None
    step: int | None = None
    host: str | None = None
    at: float | None = None

    @property
    def is_echo(self) -> bool:
        """Can it come of another rank's end?"""
        return is_echo(self.type, self.message)


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
        out_of_memory: what shows that the kernel killed for memory, on any of the job's nodes.
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
        return any(job.restarts > self.restarts and job.state in AT_WORK for job in self.job)

    @property
    def script_died_of_warning(self) -> bool:
        """Did the batch script die of USR1 or USR2, which ends the job?"""
        return bool(self.job) and self.job[0].state != "RUNNING" and self.job[0].killed_by in WARNS

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
    def answered(self) -> bool:
        """Has Slurm said anything of the job since the first signal? What it said before is the truth of then: that it
        planned no end, for instance.
        """
        first = min((each.at for each in self.heard), default=0.0)
        return any(not job.asked_at or job.asked_at >= first - SKEW or job.state not in AT_WORK for job in self.job)

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


def signal_name(number: int) -> str:
    """SIGUSR1 for 10."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
