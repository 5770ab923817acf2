"""Whether a job comes back after an attempt. Pure: cause, exit and history in, one verdict out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcresume import errors
from hpcresume.model import EXIT_COME_BACK, EXIT_DONE, EXIT_HOLD, Cause, Decision
from hpcresume.policy.budgets import Budgets, PastAttempt, barren_attempts
from hpcresume.policy.cause import Ending, Evidence

__all__ = ["FINAL_CODES", "Verdict", "decide"]

FINAL_CODES = frozenset({64, 65, 73, 78})
"""Exit codes of errors that the next attempt would meet again: wrong use, wrong state, wrong directory, wrong
option (hpcresume.errors; numbers of sysexits.h)."""


@dataclass(frozen=True)
class Verdict:
    """What happens to the job.

    Attributes:
        decision: done, come back, or hold.
        requeue: ask Slurm to start the job again; False too when Slurm does so by itself.
        exit_code: the supervisor's, should it live to exit.
        reason: one sentence for people.
    """

    decision: Decision
    requeue: bool
    exit_code: int
    reason: str


def decide(
    ending: Ending, evidence: Evidence, past: Sequence[PastAttempt], committed: int | None, budgets: Budgets
) -> Verdict:
    """Decide after the ranks ended.

    Args:
        ending: why they ended.
        evidence: what that rests on.
        past: earlier attempts of the run, the newest last.
        committed: newest step that this attempt committed, None without any.
        budgets: limits per cause.
    """
    code = evidence.child.status if evidence.child is not None else EXIT_COME_BACK
    if ending.cause is Cause.DONE:
        return Verdict(Decision.DONE, False, EXIT_DONE, "the run is finished")
    if _asked_to_hold(evidence):
        asked = evidence.decision.exit_code if evidence.decision is not None else None
        return Verdict(Decision.HOLD, False, asked if asked in FINAL_CODES else EXIT_HOLD, _hold_reason(evidence))
    code = _code_of_error(evidence) or code
    if code in FINAL_CODES:
        return Verdict(Decision.HOLD, False, code, f"{_what_ended(evidence, code)}: another attempt would end alike")
    if ending.cause is Cause.OPERATOR and not _warned_only(evidence):
        return _stopped_by_operator(evidence)
    if evidence.told_to_end and not evidence.job:
        why = "told to end, and Slurm cannot be asked why: not requeued from here"
        return Verdict(Decision.COME_BACK, False, EXIT_COME_BACK, why)
    if not past and _never_began(ending, evidence):
        return Verdict(Decision.HOLD, False, code, f"the ranks ended with exit code {code} before any session")
    return _within_budget(ending.cause, past, committed, budgets)


def _code_of_error(evidence: Evidence) -> int | None:
    """The exit code of an error of ours that ended a session: Python itself ends any program by 1."""
    if evidence.raised is None or evidence.decision is not None:
        return None
    kind = getattr(errors, evidence.raised.type, None)
    return kind.exit_code if isinstance(kind, type) and issubclass(kind, errors.HpcresumeError) else None


def _what_ended(evidence: Evidence, code: int) -> str:
    return evidence.raised.type if _code_of_error(evidence) and evidence.raised is not None else f"exit code {code}"


def _never_began(ending: Ending, evidence: Evidence) -> bool:
    """A wrong path, a failed import: the first start ends by itself, and so would every other."""
    child = evidence.child
    by_itself = child is not None and child.killed_by is None and not child.clean
    return ending.cause is Cause.CRASH and by_itself and not evidence.claimed


def _asked_to_hold(evidence: Evidence) -> bool:
    if evidence.decision is not None and evidence.decision.decision is Decision.HOLD:
        return True
    return evidence.child is not None and evidence.child.code == EXIT_HOLD


def _hold_reason(evidence: Evidence) -> str:
    reason = evidence.decision.reason if evidence.decision is not None else ""
    return f"held: {reason}" if reason else f"held: the ranks exited {EXIT_HOLD}"


def _warned_only(evidence: Evidence) -> bool:
    """A person's warning (`scancel -s USR1`) wants the job to save and come back, nothing more."""
    if evidence.told_to_end or evidence.interrupted:
        return False
    return evidence.decision is not None and evidence.decision.decision is Decision.COME_BACK


def _stopped_by_operator(evidence: Evidence) -> Verdict:
    if evidence.job and evidence.job[0].restarts > evidence.restarts:
        return Verdict(Decision.COME_BACK, False, EXIT_COME_BACK, "Slurm is starting the job again on request")
    return Verdict(Decision.COME_BACK, False, EXIT_COME_BACK, "stopped by a person: not requeued, start it again")


def _within_budget(cause: Cause, past: Sequence[PastAttempt], committed: int | None, budgets: Budgets) -> Verdict:
    attempts = (*past, PastAttempt(len(past) + 1, cause, committed))
    limit = budgets.limits.get(cause)
    barren = barren_attempts(attempts, cause)
    if limit is not None and barren >= limit:
        reason = f"{barren} attempts ended by {cause.value} without checkpoint progress (limit {limit})"
        return Verdict(Decision.HOLD, False, EXIT_HOLD, reason)
    restarts = sum(1 for each in attempts if each.cause not in (Cause.PREEMPTED, Cause.DONE))
    if budgets.restarts is not None and cause is not Cause.PREEMPTED and restarts > budgets.restarts:
        reason = f"{restarts} ends that were no preemption (--max-restarts {budgets.restarts})"
        return Verdict(Decision.HOLD, False, EXIT_HOLD, reason)
    spent = f" ({barren} of {limit} without progress)" if limit is not None and barren else ""
    return Verdict(Decision.COME_BACK, True, EXIT_COME_BACK, f"{cause.value}: comes back{spent}")
