"""What an emulation gives back. Frozen values only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["AttemptEnd", "EmulationResult", "JobResult"]

EXIT_NEVER_FIRED = 78
"""An entry of the timetable never came true: the user's timetable did not fit the job (EX_CONFIG)."""


@dataclass(frozen=True)
class AttemptEnd:
    """One start of the job and its end.

    Attributes:
        number: from 1; this is Slurm's restart count + 1, not the run's attempt number.
        start: when it started, unix seconds.
        end: when its last process was gone, unix seconds.
        exit_code: the batch script's, 128 + n when signal n killed it.
        state: Slurm's state for it: COMPLETED, FAILED, PREEMPTED, TIMEOUT, NODE_FAIL, REQUEUED.
        requeued: was the job started again (or would have been, but for the limit of attempts)?
        why: why Slurm did so, in a few words.
        fired: entries of the timetable that came true during it.
        log: its output, None when no logs are kept.
    """

    number: int
    start: float
    end: float
    exit_code: int
    state: str
    requeued: bool
    why: str
    fired: tuple[str, ...] = ()
    log: Path | None = None


@dataclass(frozen=True)
class JobResult:
    """One job of several: its id, name, last state, log file and starts."""

    id: str
    name: str
    state: str
    output: str
    attempts: tuple[AttemptEnd, ...]

    @property
    def exit_code(self) -> int:
        """0 when it completed, 75 when it waits to be started, else the batch script's own code, or 1."""
        if self.state == "COMPLETED":
            return 0
        if self.state == "PENDING":
            return 75
        return (self.attempts[-1].exit_code if self.attempts else 0) or 1


@dataclass(frozen=True)
class EmulationResult:
    """The whole life of the (first) job.

    Attributes:
        attempts: every start, in order.
        state: the last one's state; PENDING when the limit of attempts came first.
        never_fired: entries of the timetable that never came true.
        jobs: every job, this one first, then the others of its array and those that jobs submitted.
        reason: why it is still pending, "" when it is not.
    """

    attempts: tuple[AttemptEnd, ...]
    state: str
    never_fired: tuple[str, ...] = ()
    jobs: tuple[JobResult, ...] = ()
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0: all jobs completed, and all of the timetable came true.

        Else of the first job that did not: 75 when it waits to be started again, the batch script's own code, or 1.
        78 when only the timetable did not come true.
        """
        own = JobResult("", "", self.state, "", self.attempts)
        failed = next((job.exit_code for job in (own, *self.jobs) if job.exit_code), 0)
        return failed or (EXIT_NEVER_FIRED if self.never_fired else 0)
