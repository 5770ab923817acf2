"""Whether a job comes back after an attempt. Pure: cause, exit and history in, one verdict out."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpcresume import errors
from hpcresume.model import EXIT_COME_BACK, EXIT_DONE, EXIT_HOLD, Cause, Decision
from hpcresume.policy.budgets import Budgets, PastAttempt, barren_attempts, follows_a_hold, micro_batches, since_release
from hpcresume.policy.cause import Ending, Evidence, directory_is_away

__all__ = ["FINAL_CODES", "Verdict", "decide", "memory_ended", "spent_budget", "uncounted"]

FINAL_CODES = frozenset({64, 65, 73, 78})
"""Exit codes of errors that the next attempt would meet again: wrong use, wrong state, wrong directory, wrong
option (hpcresume.errors; numbers of sysexits.h)."""
_GUESSES = frozenset({Cause.OPERATOR, Cause.PREEMPTED, Cause.UNKNOWN})
"""Causes that rest on what Slurm says, or does not say, after the first signal."""
MOST_UNCOUNTED = 3
"""Restarts after which a job that leaves no record is held."""


@dataclass(frozen=True)
class Verdict:
    """What happens to the job.

    Attributes:
        decision: done, come back, or hold.
        requeue: ask Slurm to start the job again; False too when Slurm does so by itself.
        exit_code: the supervisor's, should it live to exit.
        reason: one sentence for people.
        keep: held after attempts that somebody may let go on: the job may stay in the queue, held. False for errors
            of ours that every further attempt would meet again, and where the training itself said "do not requeue".
        barren: attempts in a row that ended for this cause without checkpoint progress, this one included.
    """

    decision: Decision
    requeue: bool
    exit_code: int
    reason: str
    keep: bool = False
    barren: int = 0


def memory_ended(ending: Ending, evidence: Evidence) -> bool:
    """May want of memory have ended the attempt?

    A rank that is killed by SIGKILL and leaves no word is what the kernel's killer leaves where its counters cannot
    be read: smaller micro-batches are then worth a try, for a run whose user allowed them.
    """
    if ending.cause is Cause.OUT_OF_MEMORY:
        return True
    child = evidence.child
    return ending.cause is Cause.CRASH and child is not None and child.killed_by == signal.SIGKILL


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
    if evidence.overtaken or evidence.restarted:
        why = "a newer start of it is at work, and has the job and the run to itself"
        return Verdict(Decision.COME_BACK, False, EXIT_COME_BACK, why)
    if _asked_to_hold(evidence) and not directory_is_away(evidence):
        return _held_as_asked(evidence)
    code = _code_of_error(evidence) or code
    if code in FINAL_CODES and not directory_is_away(evidence):
        return Verdict(Decision.HOLD, False, code, f"{_what_ended(evidence, code)}: another attempt would end alike")
    if ending.cause is Cause.OPERATOR and not _warned_only(evidence):
        return _stopped_by_operator(evidence)
    if evidence.told_to_end and not evidence.answered and (not evidence.job or ending.cause in _GUESSES):
        why = "told to end, and Slurm cannot be asked why: not requeued from here"
        return Verdict(Decision.COME_BACK, False, EXIT_COME_BACK, why)
    if _never_began(ending, evidence, past):
        reason = f"the ranks ended with exit code {code} before any session"
        return Verdict(Decision.HOLD, False, code, reason, keep=True)
    return _within_budget(ending, evidence, past, committed, budgets)


def uncounted(verdict: Verdict, restarts: int) -> Verdict:
    """The verdict on a start of which no record could be kept anywhere: it comes back only while Slurm's own count of
    restarts, whatever they were for, is low. Nothing else would end a loop.
    """
    if not verdict.requeue or restarts < MOST_UNCOUNTED:
        return verdict
    reason = f"{verdict.reason}; but no record of it can be kept, and Slurm has started the job {restarts} times before"
    return replace(verdict, decision=Decision.HOLD, requeue=False, exit_code=EXIT_HOLD, reason=reason, keep=True)


def _code_of_error(evidence: Evidence) -> int | None:
    """The exit code of an error of ours that ended a session: Python itself ends any program by 1."""
    if evidence.raised is None or evidence.decision is not None:
        return None
    kind = getattr(errors, evidence.raised.type, None)
    return kind.exit_code if isinstance(kind, type) and issubclass(kind, errors.HpcresumeError) else None


def _what_ended(evidence: Evidence, code: int) -> str:
    return evidence.raised.type if _code_of_error(evidence) and evidence.raised is not None else f"exit code {code}"


def _never_began(ending: Ending, evidence: Evidence, past: Sequence[PastAttempt]) -> bool:
    """A wrong path, a failed import: the first start of all ends by itself, and so would every other.

    A run that has begun before knows its way: this time it may be the node, so the budget decides.
    """
    child = evidence.child
    by_itself = child is not None and child.killed_by is None and not child.clean
    first = not (evidence.again or evidence.restarts or past)
    return first and ending.cause is Cause.CRASH and by_itself and not evidence.claimed


def _asked_to_hold(evidence: Evidence) -> bool:
    if evidence.decision is not None and evidence.decision.decision is Decision.HOLD:
        return True
    return evidence.child is not None and evidence.child.code == EXIT_HOLD


def _held_as_asked(evidence: Evidence) -> Verdict:
    said = evidence.decision
    if said is None or said.decision is not Decision.HOLD:
        return Verdict(Decision.HOLD, False, EXIT_HOLD, f"held: the ranks exited {EXIT_HOLD}")
    final = said.exit_code is not None and said.exit_code in FINAL_CODES
    code = said.exit_code if final and said.exit_code is not None else EXIT_HOLD
    reason = f"held: {said.reason}" if said.reason else f"held: the ranks exited {EXIT_HOLD}"
    # Where no attempt was claimed nothing keeps the record by which a released job is known as one.
    return Verdict(Decision.HOLD, False, code, reason, keep=evidence.claimed and not final)


def _warned_only(evidence: Evidence) -> bool:
    """A person's warning (`scancel -s USR1`) wants the job to save and come back, nothing more; so does a TERM that is
    not Slurm's.
    """
    ended = evidence.told_to_end and not (evidence.script_died_of_warning or evidence.slurm_goes_on)
    if ended or evidence.interrupted:
        return False
    return evidence.decision is not None and evidence.decision.decision is Decision.COME_BACK


def _stopped_by_operator(evidence: Evidence) -> Verdict:
    if evidence.job and evidence.job[0].restarts > evidence.restarts:
        return Verdict(Decision.COME_BACK, False, EXIT_COME_BACK, "Slurm is starting the job again on request")
    return Verdict(Decision.COME_BACK, False, EXIT_COME_BACK, "stopped by a person: not requeued, start it again")


def spent_budget(past: Sequence[PastAttempt], budgets: Budgets) -> tuple[Cause, str] | None:
    """Which budget is spent before an attempt begins, and in words; None when none is.

    Attempts that took their supervisor along (its node was lost) end without anybody to decide: the next start does.
    The newest attempt counts only once its end is known.
    """
    if follows_a_hold(past):
        return None
    known = past[:-1] if past and not past[-1].decided and past[-1].cause is Cause.UNKNOWN else past
    for cause in budgets.limits:
        reason = _spent(known, cause, budgets)
        if reason:
            return cause, reason
    return None


def _spent(attempts: Sequence[PastAttempt], cause: Cause, budgets: Budgets) -> str:
    limit, most = budgets.limits.get(cause), budgets.micro_batches
    if limit is None:
        return ""
    barren = barren_attempts(attempts, {cause}, most)
    if barren >= limit:
        return f"{_attempts(barren)} ended by {cause.value} without checkpoint progress (limit {limit})"
    total = barren_attempts(attempts, budgets.limits, most)
    if total >= budgets.total:
        return f"{_attempts(total)} ended in one way or another without checkpoint progress (limit {budgets.total})"
    return ""


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _within_budget(
    ending: Ending, evidence: Evidence, past: Sequence[PastAttempt], committed: int | None, budgets: Budgets
) -> Verdict:
    cause, most = ending.cause, budgets.micro_batches
    memory = memory_ended(ending, evidence)
    this = PastAttempt(0, cause, committed, memory=memory, released=follows_a_hold(past))
    attempts = (*past, this)
    limit = budgets.limits.get(cause)
    barren = barren_attempts(attempts, {cause}, most)
    spent = _spent(attempts, cause, budgets)
    if spent:
        return Verdict(Decision.HOLD, False, EXIT_HOLD, spent, keep=True, barren=barren)
    restarts = sum(1 for each in since_release(attempts) if each.cause not in (Cause.PREEMPTED, Cause.DONE))
    if budgets.restarts is not None and cause is not Cause.PREEMPTED and restarts > budgets.restarts:
        reason = f"{restarts} ends that were no preemption (--max-restarts {budgets.restarts})"
        return Verdict(Decision.HOLD, False, EXIT_HOLD, reason, keep=True, barren=barren)
    before, after = micro_batches(past, most), micro_batches(attempts, most)
    if after > before:
        reason = f"{cause.value}: comes back with each batch cut into {after} pieces"
        return Verdict(Decision.COME_BACK, True, EXIT_COME_BACK, reason)
    row = f" ({barren} of {limit} without progress)" if limit is not None and barren else ""
    return Verdict(Decision.COME_BACK, True, EXIT_COME_BACK, f"{cause.value}: comes back{row}", barren=barren)
