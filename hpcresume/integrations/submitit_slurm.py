"""The end of an attempt under submitit's Slurm executor, where no supervisor stands behind the ranks.

Decides as `hpcresume launch` does, with the same evidence and the same budgets, records it, and has Slurm start the
job again: on one rank alone, after the commit. submitit's own budget of timeouts is charged for time limits only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from types import FrameType

from hpcresume.errors import SlurmError
from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.launch.journal import Journal
from hpcresume.launch.records import (
    close_predecessor,
    committed_step,
    past_attempts,
    rank_warnings,
    requeue_accepted,
)
from hpcresume.launch.rendezvous import Claimed, Rendezvous
from hpcresume.model import EXIT_COME_BACK, Cause, Decision
from hpcresume.policy.budgets import Budgets
from hpcresume.policy.cause import ENDS_JOB, ChildExit, Ending, Evidence, name_cause
from hpcresume.policy.job_facts import JobFacts
from hpcresume.policy.requeue import Verdict, decide
from hpcresume.slurm.commands import Requeue, RequeueAnswer, requeue, show_job
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["EndSequence", "await_end", "bring_back", "wait_for_rank_0"]

FAREWELL_SECONDS = 60.0
"""How long a task waits for the end that follows an accepted requeue."""
SILENCE_SECONDS = 600.0
"""How long the others wait for a sign of rank 0, which may have to ask Slurm six times for ten seconds each."""
LOOK_EVERY = 0.2
OTHERS_SECONDS = 2.0
"""How long the rank that was refused waits for the others to report it."""


class EndSequence:
    """Notices Slurm's TERM, by which a task learns that its job is being ended; made in the main thread.

    The signal is blocked there, so that no program started from it dies of it: an scontrol that did would look like a
    refusal of the requeue. Another thread of the process takes the signal all the same, and what waits for a blocked
    signal never hears of that: the handler does, between two looks. A task that missed its TERM would stay until
    Slurm's KILL, KillWait later, and keep the job from starting again.
    """

    def __init__(self) -> None:
        self._came = False
        signal.signal(signal.SIGTERM, self._note)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True

    def wait(self, seconds: float) -> bool:
        """Has it come by then?"""
        until = time.monotonic() + seconds
        while not self._came and (left := until - time.monotonic()) > 0:
            self._came = signal.sigtimedwait({signal.SIGTERM}, min(left, LOOK_EVERY)) is not None or self._came
        return self._came


def bring_back(rendezvous: Rendezvous, most_timeouts: int | None) -> str:
    """On the rank that kept the record: decide, record, requeue. "" when Slurm will start the job again, else why not.

    Args:
        rendezvous: where the session left what it claimed and decided.
        most_timeouts: submitit's `max_num_timeout`, None when unknown.
    """
    slurm, claimed = SlurmEnvironment.from_environ(os.environ), rendezvous.claimed()
    if claimed is None or slurm.job_id is None:
        return "no attempt was claimed"
    evidence = _evidence(rendezvous, claimed, slurm)
    ending, journal = name_cause(evidence), Journal()
    committed = committed_step(claimed.paths)
    verdict = decide(ending, evidence, past_attempts(claimed.run, claimed.number), committed, Budgets())
    by_itself = any(job.restarts > slurm.restart_count for job in evidence.job)
    refused = "" if by_itself else _refusal(verdict, ending, claimed, slurm, most_timeouts)
    journal.attach(claimed.paths.supervisor)
    _close_predecessor(claimed, slurm)
    journal.record("started", kind="submitit", job_id=slurm.job_id, restart=slurm.restart_count,
                   host=os.uname().nodename, pid=os.getpid())  # fmt: skip
    journal.record("cause", cause=ending.cause.value, evidence=list(ending.evidence))
    decision = Decision.HOLD if refused else verdict.decision
    journal.record("decision", decision=decision.value, reason=refused or verdict.reason, requeue=not refused)
    journal.record("ended", cause=ending.cause.value, exit_code=verdict.exit_code, committed=committed)
    if refused:
        return refused
    answer = RequeueAnswer(Requeue.ACCEPTED, "Slurm does it by itself") if by_itself else requeue(slurm.job_id)
    journal.record("requeue", result=answer.result.value, detail=answer.detail)
    return "" if answer.result is Requeue.ACCEPTED else f"requeue {answer.result.value}: {answer.detail}"


def _evidence(rendezvous: Rendezvous, claimed: Claimed, slurm: SlurmEnvironment) -> Evidence:
    job: tuple[JobFacts, ...] = ()
    with contextlib.suppress(SlurmError):
        job = (show_job(slurm.job_id or ""),)
    heard = rank_warnings(claimed.paths)
    return Evidence(
        claimed=True,
        decision=rendezvous.decision(),
        child=ChildExit(code=EXIT_COME_BACK),
        child_at=time.time(),
        # Where no supervisor stands behind the ranks, the end sequence is heard by them alone.
        signals=tuple(each for each in heard if each.signal in ENDS_JOB),
        rank_warnings=heard,
        job=job,
        restarts=slurm.restart_count,
    )


def _refusal(
    verdict: Verdict, ending: Ending, claimed: Claimed, slurm: SlurmEnvironment, most_timeouts: int | None
) -> str:
    """Why the job shall not come back, or ""."""
    if not verdict.requeue:
        return verdict.reason
    if ending.cause is not Cause.WALLTIME or most_timeouts is None:
        return ""
    earlier = sum(
        past.cause is Cause.WALLTIME and _job_of(claimed.run, past.attempt) == slurm.job_id
        for past in past_attempts(claimed.run, claimed.number)
    )
    return "timed-out too many times" if earlier >= most_timeouts else ""


def _job_of(run: RunPaths, number: int) -> str | None:
    try:
        facts = json.loads(run.attempt(number).claim.read_bytes())
        return str(facts["job_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _close_predecessor(claimed: Claimed, slurm: SlurmEnvironment) -> None:
    restarted = slurm.job_id if slurm.restart_count else None
    with contextlib.suppress(OSError):
        close_predecessor(claimed.run, claimed.number, restarted_job=restarted)


def await_end(attempt: AttemptPaths | None, end: EndSequence, seconds: float = FAREWELL_SECONDS) -> None:
    """Slurm now ends the job. Leaving before would only race with it, unless its TERM was what stopped the training."""
    if attempt is None or all(each.signal not in ENDS_JOB for each in rank_warnings(attempt)):
        end.wait(seconds)


def wait_for_rank_0(
    result: Path | None, attempt: AttemptPaths | None, end: EndSequence, silence: float = SILENCE_SECONDS
) -> str:
    """On the other ranks: wait for the end, too. "" once it has come or is about to, else why it does not come.

    Rank 0 may be asking a slow Slurm, or writing to a slow filesystem: a task that left before it would be told would
    take the whole step down, and the requeue with it.

    Args:
        result: where rank 0 reports an error instead.
        attempt: where it records that Slurm has accepted.
        end: notices the end when it comes.
        silence: seconds for which it may say nothing.
    """
    until = time.monotonic() + silence
    while time.monotonic() < until:
        if end.wait(LOOK_EVERY):
            return ""
        if result is not None and result.exists():
            return "task 0 says why"
        if attempt is not None and requeue_accepted(attempt):
            await_end(attempt, end)
            return ""
    return f"task 0 has not said within {silence:g} s what becomes of the job"
