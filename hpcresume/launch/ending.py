"""The end of an attempt: gather the evidence, name the cause, decide, record, and only then requeue."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

from hpcresume.launch.barren import barren_starts, note_barren_start
from hpcresume.launch.inbox import ENDING, take_signal
from hpcresume.launch.journal import say
from hpcresume.launch.memory import memory_kills, new_memory_kills
from hpcresume.launch.options import Outcome
from hpcresume.launch.records import committed_step, past_attempts, raised, rank_warnings
from hpcresume.launch.supervisor import Supervisor
from hpcresume.model import EXIT_COME_BACK, Cause, Decision
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import Ending, name_cause
from hpcresume.policy.requeue import Verdict, decide
from hpcresume.slurm.commands import Requeue, requeue

__all__ = ["finish", "last_seconds"]

ASK_SECONDS = 8.0
"""How long the end of an attempt waits for Slurm's view of it."""
LEAVE_SECONDS = 1.0
"""From TERM until ranks that have decided but not left are killed."""
RESCUE_SECONDS = 3.0
"""From TERM until a job at its time limit is requeued in spite of ranks that still save; KILL comes after
max(KillWait, 5) seconds (seen: 4.6)."""
FAREWELL_SECONDS = 60.0
"""How long to wait for the TERM that follows an accepted requeue."""


def finish(supervisor: Supervisor) -> Outcome:
    """Decide what becomes of the job and do it."""
    _gather(supervisor)
    ending = name_cause(supervisor.evidence)
    past, committed = _history(supervisor)
    verdict = decide(ending, supervisor.evidence, past, committed, supervisor.options.budgets)
    _record(supervisor, ending, verdict, committed)
    say(f"{ending.cause.value}: {ending.evidence[0]}")
    if verdict.decision is Decision.COME_BACK:
        _come_back(supervisor, verdict)
    else:
        say(f"{verdict.decision.value}: {verdict.reason} (exit code {verdict.exit_code})")
    claimed, answer = supervisor.claimed, supervisor.requeued
    return Outcome(
        exit_code=verdict.exit_code,
        decision=verdict.decision.value,
        cause=ending.cause.value,
        reason=verdict.reason,
        evidence=ending.evidence,
        run=str(claimed.run.root) if claimed is not None else None,
        attempt=claimed.number if claimed is not None else None,
        committed=committed,
        requeued=answer is not None and answer.result is Requeue.ACCEPTED,
    )


def _gather(supervisor: Supervisor) -> None:
    """Complete the evidence. A finished run needs nobody's opinion; for any other end Slurm is asked once more."""
    child = supervisor.evidence.child
    assert child is not None
    supervisor.journal.record("child-exit", code=child.code, signal=child.signal)
    if not child.clean:
        swept = supervisor.ranks.sweep()
        if swept:
            supervisor.journal.record("swept", processes=swept)
    claimed = supervisor.claimed
    evidence = replace(
        supervisor.evidence,
        decision=supervisor.rendezvous.decision(),
        raised=raised(claimed.paths) if claimed is not None else None,
        rank_warnings=rank_warnings(claimed.paths) if claimed is not None else (),
        out_of_memory=new_memory_kills(supervisor.memory_before, memory_kills()),
    )
    if evidence.decision is None or evidence.decision.decision is not Decision.DONE:
        supervisor.desk.ask_and_wait(ASK_SECONDS)
    supervisor.evidence = replace(evidence, job=supervisor.desk.known)


def _history(supervisor: Supervisor) -> tuple[tuple[PastAttempt, ...], int | None]:
    claimed = supervisor.claimed
    if claimed is None:
        return barren_starts(supervisor.options.run, supervisor.slurm), None
    try:
        return past_attempts(claimed.run, claimed.number), committed_step(claimed.paths)
    except OSError as error:
        say(f"the history of the run cannot be read: {error}")
        return (), None


def _record(supervisor: Supervisor, ending: Ending, verdict: Verdict, committed: int | None) -> None:
    """All of it before the requeue, which kills us."""
    journal = supervisor.journal
    journal.record("cause", cause=ending.cause.value, evidence=list(ending.evidence))
    journal.record("decision", decision=verdict.decision.value, reason=verdict.reason, requeue=verdict.requeue)
    journal.record("ended", cause=ending.cause.value, exit_code=verdict.exit_code, committed=committed)
    if supervisor.claimed is None and verdict.requeue:
        note_barren_start(supervisor.options.run, supervisor.slurm, ending.cause)


def _come_back(supervisor: Supervisor, verdict: Verdict) -> None:
    say(verdict.reason)
    if supervisor.slurm.job_id is None:
        say(f"not under Slurm: run the same command again to go on (exit code {EXIT_COME_BACK})")
    elif verdict.requeue and supervisor.options.requeue and _requeue(supervisor):
        _await_end(supervisor)


def _requeue(supervisor: Supervisor) -> bool:
    """Ask Slurm to start the job again, once; True when it will."""
    job_id = supervisor.slurm.job_id
    if job_id is None or supervisor.requeued is not None:
        return supervisor.requeued is not None and supervisor.requeued.result is Requeue.ACCEPTED
    answer = supervisor.requeued = requeue(job_id)
    supervisor.journal.record("requeue", result=answer.result.value, detail=answer.detail)
    if answer.result is Requeue.ACCEPTED:
        say(f"job {job_id} is back in the queue")
        return True
    say(f"requeue {answer.result.value}: {answer.detail}; submit the job again to go on (exit code {EXIT_COME_BACK})")
    return False


def last_seconds(supervisor: Supervisor) -> None:
    """While the ranks still run in the scheduler's end sequence: what must not wait for the KILL.

    After a commit, ranks that do not leave are killed, so that the requeue can be asked for. Without one, a job
    at its time limit is requeued before the KILL ends us too: Slurm would not do it (seen: `scontrol requeue`
    of a job in state COMPLETING is accepted), and whatever was committed before is there to go on from.
    """
    since = supervisor.ending_since
    if since is None or supervisor.requeued is not None:
        return
    decision = supervisor.rendezvous.decision()
    if decision is not None and decision.decision is Decision.COME_BACK:
        if time.time() - since > LEAVE_SECONDS:
            supervisor.journal.record("lingering")
            supervisor.ranks.kill()
    elif time.time() - since > RESCUE_SECONDS and supervisor.options.requeue:
        _rescue(supervisor)


def _rescue(supervisor: Supervisor) -> None:
    ending = name_cause(supervisor.evidence)
    if ending.cause is not Cause.WALLTIME:
        return
    past, committed = _history(supervisor)
    if decide(ending, supervisor.evidence, past, committed, supervisor.options.budgets).requeue:
        _requeue(supervisor)


def _await_end(supervisor: Supervisor) -> None:
    """Slurm now ends the batch step. Leaving before would only race with it, unless its TERM has come already."""
    if any(received.signal in ENDING for received in supervisor.evidence.signals):
        return
    until = time.monotonic() + FAREWELL_SECONDS
    while (left := until - time.monotonic()) > 0:
        taken = take_signal(left)
        if taken is not None and (taken.number in ENDING or taken.number == signal.SIGINT):
            return
