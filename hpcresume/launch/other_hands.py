"""A start that finds its run in the hands of another job: it steps back, or waits behind that one, and disturbs nobody.

Two jobs of a run may start at the same moment (a fallback and the job that it stood in for, say), and a person may
submit a run twice. The run's claim lets one of them train. That the other was refused says nothing about the run: it
is recorded nowhere, counts towards no budget, and ends nothing that belongs to the one at work.
"""

from __future__ import annotations

from hpcresume.errors import RunBusyError
from hpcresume.io.paths import RunPaths
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.options import LaunchOptions, Outcome
from hpcresume.launch.patience import PATIENCE, StartedAgainError, ThisStart, ask_patiently, look
from hpcresume.launch.predecessors import lead_over_to
from hpcresume.launch.records import holding_job
from hpcresume.launch.siblings import dismiss, stands_behind
from hpcresume.model import EXIT_COME_BACK, EXIT_DONE, Decision
from hpcresume.policy.cause import Evidence
from hpcresume.slurm.changes import Change, change_job
from hpcresume.slurm.commands import Requeue, requeue
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["step_aside", "was_refused"]

_AT_WORK = frozenset({"RUNNING", "CONFIGURING", "SUSPENDED"})
_ENDING = "COMPLETING"
"""Slurm's states of a job that has nodes (squeue(1), JOB STATE CODES)."""


def was_refused(evidence: Evidence) -> bool:
    """Did the ranks end, before any attempt was theirs, by the code that a run in other hands refuses them with?"""
    said = evidence.decision.exit_code if evidence.decision is not None else None
    exited = evidence.child.code if evidence.child is not None else None
    return not evidence.claimed and not evidence.told_to_end and RunBusyError.exit_code in (said, exited)


def step_aside(
    options: LaunchOptions, slurm: SlurmEnvironment, run: RunPaths, hands: Hands, *, refused: bool
) -> Outcome | None:
    """What this start ends with because another job has the run; None when none has, or nobody can say so.

    A job that another job of the run submitted has nothing left to do. One that Slurm has started again is the user's
    own: it waits in the queue until the other is over, and then looks whether anything is left to do.

    Args:
        options: what the user asked for.
        slurm: this job.
        run: its run.
        hands: how to reach Slurm.
        refused: its ranks were refused the run; else this is before they start.
    """
    holder, number = _holder(run)
    behind = stands_behind(hands.environ, slurm)
    by_hand = behind is None and not slurm.restart_count
    if slurm.job_id is None or not holder or holder == slurm.job_id or (by_hand and not refused):
        return None
    facts = look(holder, hands)
    if facts is None or facts.state not in (_AT_WORK if not refused else _AT_WORK | {_ENDING}):
        return None
    busy = f"job {holder} is at work on {run.root} (attempt {number})"
    if by_hand:
        dismiss(slurm, run, hands)
        why = f"{busy}: wait for it, or cancel it"
        say(why)
        return Outcome(RunBusyError.exit_code, Decision.HOLD.value, reason=why, run=str(run.root))
    if behind is None or facts.state == _ENDING:
        return _wait_behind(options, slurm, run, holder, busy, hands)
    dismiss(slurm, run, hands)
    lead_over_to(holder, slurm, run, hands)
    why = f"{busy}: nothing to start"
    say(why)
    return Outcome(EXIT_DONE, Decision.COME_BACK.value, reason=why, run=str(run.root))


def _holder(run: RunPaths) -> tuple[str | None, int]:
    """The job that claimed the newest attempt, and the attempt's number."""
    try:
        newest = max(run.attempt_numbers(), default=0)
    except OSError:
        return None, 0
    return (holding_job(run.attempt(newest)) if newest else None), newest


def _wait_behind(
    options: LaunchOptions, slurm: SlurmEnvironment, run: RunPaths, holder: str, busy: str, hands: Hands
) -> Outcome | None:
    """Back into the queue until that job is over; None where Slurm will not, or the user wants no requeue."""
    start = ThisStart.here(slurm)
    if start is None or not options.requeue:
        return None
    why = f"{busy}: waits for its end"
    try:
        answer = ask_patiently(
            lambda: requeue(start.job_id, execute=hands.execute, sleep=hands.sleep), hands, PATIENCE, start
        )
    except StartedAgainError:
        why = f"{busy}, and this job was started again meanwhile"
        say(why)
        return Outcome(EXIT_COME_BACK, Decision.COME_BACK.value, reason=why, run=str(run.root))
    if answer.result is not Requeue.ACCEPTED:
        return None
    change = Change("Dependency", f"afterany:{holder}", why)
    refusals = change_job(start.job_id, [change], execute=hands.execute, sleep=hands.sleep)
    say(why + (f"; Slurm refuses the dependency: {refusals[0][1]}" if refusals else ""))
    return Outcome(EXIT_COME_BACK, Decision.COME_BACK.value, reason=why, run=str(run.root), requeued=True)
