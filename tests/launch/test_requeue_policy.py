from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import DEFAULT_LIMITS, DEFAULT_TOTAL, Budgets, PastAttempt, barren_attempts
from hpcresume.policy.cause import ChildExit, Ending, Evidence, SessionDecision, SignalReceived
from hpcresume.policy.job_facts import JobFacts
from hpcresume.policy.requeue import FINAL_CODES, Verdict, decide

BACK = SessionDecision(Decision.COME_BACK, "warned", 40)
DIED = Evidence(claimed=True, child=ChildExit(137))
CAME_BACK = Evidence(claimed=True, decision=BACK, child=ChildExit(0))
CHARGED = sorted(set(DEFAULT_LIMITS) - {Cause.OPERATOR})
"""Those that come back by themselves; what a person wants depends on how he said it."""


def verdict(cause: Cause, evidence: Evidence = DIED, past=(), committed=None, budgets=None) -> Verdict:
    return decide(Ending(cause), evidence, past, committed, budgets or Budgets())


def failed(*causes: Cause) -> tuple[PastAttempt, ...]:
    return tuple(PastAttempt(n, cause) for n, cause in enumerate(causes, 1))


def test_a_finished_run_is_not_requeued():
    assert verdict(Cause.DONE) == Verdict(Decision.DONE, False, 0, "the run is finished")


def test_a_preemption_comes_back_however_often():
    past = failed(*[Cause.PREEMPTED] * 1000)
    assert verdict(Cause.PREEMPTED, CAME_BACK, past).requeue
    assert verdict(Cause.PREEMPTED, CAME_BACK, past, budgets=Budgets(restarts=0)).requeue


@pytest.mark.parametrize("cause", CHARGED)
def test_an_end_without_progress_comes_back_until_its_budget_is_spent(cause):
    limit = DEFAULT_LIMITS[cause]
    for tries in range(1, limit):
        assert verdict(cause, past=failed(*[cause] * (tries - 1))).requeue
    spent = verdict(cause, past=failed(*[cause] * (limit - 1)))
    assert (spent.decision, spent.requeue, spent.exit_code) == (Decision.HOLD, False, 77)
    assert str(limit) in spent.reason


def test_the_third_crash_in_a_row_holds_the_run_and_preemptions_in_between_change_nothing():
    crash, preempted = Cause.CRASH, Cause.PREEMPTED
    assert verdict(crash, past=failed(crash, preempted)).requeue
    assert not verdict(crash, past=failed(crash, preempted, crash, preempted)).requeue


def test_a_run_that_commits_further_steps_is_never_held_for_its_crashes():
    past = tuple(PastAttempt(n, Cause.CRASH, n * 10) for n in range(1, 50))
    assert verdict(Cause.CRASH, past=past, committed=500).requeue
    assert barren_attempts(past, {Cause.CRASH}) == 0


def test_committing_an_old_step_again_is_no_progress():
    past = (PastAttempt(1, Cause.CRASH, 40), PastAttempt(2, Cause.CRASH, 40), PastAttempt(3, Cause.CRASH, 30))
    assert barren_attempts(past, {Cause.CRASH}) == 2
    assert not verdict(Cause.CRASH, past=past, committed=40).requeue


def test_the_reserved_exit_code_and_the_sessions_word_hold():
    code = verdict(Cause.CRASH, Evidence(claimed=True, child=ChildExit(77)))
    word = verdict(Cause.UNKNOWN, Evidence(decision=SessionDecision(Decision.HOLD, "look at me"), child=ChildExit(0)))
    assert (code.decision, code.exit_code) == (word.decision, word.exit_code) == (Decision.HOLD, 77)
    assert "look at me" in word.reason


@pytest.mark.parametrize("code", sorted(FINAL_CODES))
def test_an_error_that_every_attempt_would_meet_ends_the_job_with_its_own_code(code):
    stopped = verdict(Cause.CRASH, Evidence(claimed=True, child=ChildExit(code)), past=failed(Cause.PREEMPTED))
    assert (stopped.decision, stopped.requeue, stopped.exit_code) == (Decision.HOLD, False, code)


def test_ranks_that_fail_before_any_session_on_the_first_start_are_held_where_a_person_sees_it():
    typo = Evidence(child=ChildExit(2))
    assert verdict(Cause.CRASH, typo) == Verdict(
        Decision.HOLD, False, 2, "the ranks ended with exit code 2 before any session", keep=True
    )
    assert verdict(Cause.CRASH, typo, past=failed(Cause.PREEMPTED)).requeue, "it has begun before: it may be the node"
    assert verdict(Cause.CRASH, replace(typo, restarts=1), past=failed(Cause.PREEMPTED)).requeue
    assert verdict(Cause.CRASH, Evidence(child=ChildExit(137))).requeue


def test_a_cancelled_job_and_an_interrupted_one_are_not_requeued():
    term = (SignalReceived(15, 1.0),)
    cancelled = Evidence(claimed=True, decision=BACK, child=ChildExit(0), signals=term, job=(JobFacts("COMPLETING"),))
    interrupted = Evidence(claimed=True, decision=BACK, child=ChildExit(0), interrupted=True)
    for evidence in (cancelled, interrupted):
        stopped = verdict(Cause.OPERATOR, evidence)
        assert (stopped.decision, stopped.requeue, stopped.exit_code) == (Decision.COME_BACK, False, 75)


def test_a_job_that_slurm_ends_for_reasons_unknown_is_not_brought_back_from_here():
    ended = Evidence(claimed=True, decision=BACK, child=ChildExit(0), signals=(SignalReceived(15, 1.0),))
    stopped = verdict(Cause.PREEMPTED, ended)
    assert (stopped.decision, stopped.requeue) == (Decision.COME_BACK, False)


def test_a_warning_sent_by_a_person_brings_the_job_back():
    assert verdict(Cause.OPERATOR, CAME_BACK).requeue


def test_max_restarts_counts_every_end_but_preemptions():
    past = (
        *failed(Cause.PREEMPTED, Cause.PREEMPTED),
        PastAttempt(3, Cause.CRASH, 10),
        PastAttempt(4, Cause.WALLTIME, 20),
    )
    assert verdict(Cause.CRASH, past=past, committed=30, budgets=Budgets(restarts=3)).requeue
    held = verdict(Cause.CRASH, past=past, committed=30, budgets=Budgets(restarts=2))
    assert (held.decision, held.exit_code) == (Decision.HOLD, 77)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(CHARGED), min_size=40, max_size=40))
def test_a_run_without_progress_is_held_after_a_bounded_number_of_attempts(causes):
    past: tuple[PastAttempt, ...] = ()
    for number, cause in enumerate(causes, 1):
        if not verdict(cause, past=past).requeue:
            break
        past = (*past, PastAttempt(number, cause))
    assert len(past) < min(DEFAULT_TOTAL, sum(limit - 1 for limit in DEFAULT_LIMITS.values()) + 1)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from(Cause), st.none() | st.integers(0, 100)), max_size=30), st.sampled_from(CHARGED)
)
def test_an_attempt_that_makes_progress_always_comes_back(history, cause):
    past = tuple(PastAttempt(n, each, step) for n, (each, step) in enumerate(history, 1))
    assert verdict(cause, past=past, committed=101).requeue


@given(st.sampled_from(Cause), st.integers(0, 255), st.booleans())
def test_only_a_job_that_comes_back_is_requeued_and_only_a_done_one_exits_zero(cause, code, claimed):
    result = verdict(cause, Evidence(claimed=claimed, child=ChildExit(code)))
    assert result.requeue <= (result.decision is Decision.COME_BACK)
    assert (result.exit_code == 0) == (result.decision is Decision.DONE)
