"""The end of an attempt under submitit's Slurm executor, where no supervisor stands behind the ranks.

Decides as `hpcresume launch` does, with the same evidence and the same budgets, records it, and has Slurm start the
job again: on one rank alone, after the commit. submitit's own budget of timeouts is charged for time limits only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

from hpcresume.errors import SlurmError
from hpcresume.io.durable import write_durably
from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.launch.closing import close_before_start
from hpcresume.launch.comeback import carry_out
from hpcresume.launch.deadline import deadline_facts
from hpcresume.launch.ending import conclude
from hpcresume.launch.facts import asker
from hpcresume.launch.gate import admit
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import Journal
from hpcresume.launch.last_wait import await_slurm
from hpcresume.launch.opening import open_record
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.patience import PATIENCE
from hpcresume.launch.records import (
    awaited_until,
    committed_step,
    holding_job,
    past_attempts,
    rank_warnings,
    refused_requeue,
    requeue_accepted,
)
from hpcresume.launch.rendezvous import Claimed, Rendezvous
from hpcresume.model import EXIT_COME_BACK, Cause, Decision
from hpcresume.policy.cause import ENDS_JOB, ChildExit, Ending, Evidence, name_cause
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.commands import Requeue, RequeueAnswer
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["EndSequence", "await_end", "bring_back", "hold_before_start", "wait_for_rank_0"]

FAREWELL_SECONDS = 60.0
"""How long a task waits for the end that follows an accepted requeue."""
SILENCE_SECONDS = PATIENCE + 600.0
"""How long the others wait for a sign of rank 0, which asks a silent controller for as long as a supervisor does; and
for the next one, where it has recorded until when it waits itself."""
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
        self._handler = signal.signal(signal.SIGTERM, self._note)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})

    def give_back(self) -> None:
        """No end is awaited after all: everything as it was found."""
        signal.signal(signal.SIGTERM, self._handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True

    def wait(self, seconds: float) -> bool:
        """Has it come by then?"""
        until = time.monotonic() + seconds
        while not self._came and (left := until - time.monotonic()) > 0:
            self._came = signal.sigtimedwait({signal.SIGTERM}, min(left, LOOK_EVERY)) is not None or self._came
        return self._came


def bring_back(rendezvous: Rendezvous, most_timeouts: int | None, end: EndSequence) -> str:
    """On the rank that kept the record: decide, record, and have Slurm do it.

    "" when Slurm will start the job again, or keeps it in the queue, held, until a person releases it; else why not.
    Where Slurm will not be told, and starts a preempted job again by itself once it has ended it, that is waited for.

    Args:
        rendezvous: where the session left what it claimed and decided.
        most_timeouts: submitit's `max_num_timeout`, None when unknown.
        end: notices the end of the job when it comes.
    """
    slurm, claimed = SlurmEnvironment.from_environ(os.environ), rendezvous.claimed()
    if claimed is None or slurm.job_id is None:
        return "no attempt was claimed"
    options, journal = _options(claimed.run.root), Journal()
    # A supervisor does so at the start: here the rank that outlived it.
    open_record(journal, claimed, slurm, options, supervised=False)
    journal.record("started", kind="submitit", job_id=slurm.job_id, restart=slurm.restart_count,
                   host=os.uname().nodename, node=slurm.node_name, nodes=slurm.node_list, pid=os.getpid())  # fmt: skip
    evidence = _evidence(rendezvous, claimed, slurm)
    _record_deadline(claimed, evidence)
    if any(job.restarts > slurm.restart_count for job in evidence.job) and not evidence.restarted:
        return _by_itself(options, slurm, claimed, evidence, journal)
    refused = _out_of_time(slurm, claimed, evidence, most_timeouts)
    if refused:
        _record(journal, name_cause(evidence), Decision.HOLD, refused, committed_step(claimed.paths))
        return refused
    case = conclude(options, slurm, claimed, evidence, journal.record)
    carried = carry_out(case, Hands())
    if carried.awaits_end:
        carried = await_slurm(case, Hands(), end.wait)
    if carried.leaving or carried.awaits_end:
        return ""
    if case.evidence.overtaken or case.evidence.restarted:
        journal.record("requeue", result=Requeue.ACCEPTED.value, detail="another start of the job is at work")
        return ""
    return (refused_requeue(claimed.paths) if case.verdict.requeue else "") or case.verdict.reason


def hold_before_start(run: Path) -> bool:
    """At the start of a job, on rank 0: what a supervisor sees to before any rank begins.

    Of the attempt before, when it left nobody to say why it ended, Slurm is asked. In a job that Slurm started again
    nodes that were lost under that one are suspect from now on. An attempt that was lost with its ranks left
    nobody to decide: when too many have ended so, the job goes back into the queue, held. So does one whose run another
    job has meanwhile, to wait for that one's end. Whether it did.
    """
    slurm = SlurmEnvironment.from_environ(os.environ)
    if slurm.procid != 0:
        return False
    close_before_start(RunPaths(run.absolute()), slurm, Hands(), supervised=False)
    if not slurm.restart_count:
        return False
    refused = admit(_options(run), slurm, Hands()).refused
    return refused is not None and (refused.held or refused.requeued)


def _options(run: Path) -> LaunchOptions:
    """As `hpcresume launch` has them unless told; nobody may stand behind a job that submitit knows by its number."""
    return LaunchOptions((), run=run.absolute(), guard=False)


def _by_itself(
    options: LaunchOptions, slurm: SlurmEnvironment, claimed: Claimed, evidence: Evidence, journal: Journal
) -> str:
    """Slurm has put the job back already: what is recorded, and what is changed, is the same."""
    case = conclude(options, slurm, claimed, evidence, journal.record)
    answer = RequeueAnswer(Requeue.ACCEPTED, "Slurm does it by itself")
    journal.record("requeue", result=answer.result.value, detail=answer.detail)
    if case.verdict.requeue:
        carry_out(case, Hands(), answer)
    return ""


def _out_of_time(slurm: SlurmEnvironment, claimed: Claimed, evidence: Evidence, most_timeouts: int | None) -> str:
    """Why submitit's own budget of timeouts keeps the job from coming back, or ""."""
    if most_timeouts is None or name_cause(evidence).cause is not Cause.WALLTIME:
        return ""
    earlier = sum(
        past.cause is Cause.WALLTIME and holding_job(claimed.run.attempt(past.attempt)) == slurm.job_id
        for past in past_attempts(claimed.run, claimed.number)
    )
    return "timed-out too many times" if earlier >= most_timeouts else ""


def _record(journal: Journal, ending: Ending, decision: Decision, reason: str, committed: int | None) -> None:
    journal.record("cause", cause=ending.cause.value, evidence=list(ending.evidence))
    journal.record("decision", decision=decision.value, reason=reason, requeue=False)
    journal.record("ended", cause=ending.cause.value, exit_code=EXIT_COME_BACK, committed=committed)


def _record_deadline(claimed: Claimed, evidence: Evidence) -> None:
    """Until when the attempt had, for whoever reads of it later."""
    if evidence.job and evidence.job[0].state == "RUNNING":
        evidence = replace(evidence, signals=())  # a TERM in the midst of a grace is a warning, and no end yet
    facts = deadline_facts(evidence)
    if facts is not None:
        with contextlib.suppress(OSError):
            write_durably(claimed.paths.deadline, facts)


def _evidence(rendezvous: Rendezvous, claimed: Claimed, slurm: SlurmEnvironment) -> Evidence:
    job: tuple[JobFacts, ...] = ()
    ask = asker(slurm, ahead=False)
    with contextlib.suppress(SlurmError):
        job = (ask(False),) if ask is not None else ()
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
        attempt: where it records that Slurm has accepted, or until when it waits for Slurm to end the job.
        end: notices the end when it comes.
        silence: seconds for which it may say nothing.
    """
    until = time.monotonic() + silence
    while time.monotonic() < until or _is_awaited(attempt, silence):
        if end.wait(LOOK_EVERY):
            return ""
        if result is not None and result.exists():
            return "task 0 says why"
        if attempt is not None and requeue_accepted(attempt):
            await_end(attempt, end)
            return ""
    return f"task 0 has not said within {silence:g} s what becomes of the job"


def _is_awaited(attempt: AttemptPaths | None, silence: float) -> bool:
    """Has rank 0 said that it waits for Slurm to end the job, until a moment that is not long past?"""
    until = awaited_until(attempt) if attempt is not None else None
    return until is not None and time.time() < until + silence
