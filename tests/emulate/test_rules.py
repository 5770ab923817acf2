"""The tables of what was seen on real Slurm (docs and LOCAL_SLURM): who is signalled, what becomes of the job."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.config.timetable import SignalPlan
from hpcresume.emulate.rules import (
    Delivery,
    Ended,
    EndedBy,
    Target,
    aftermath,
    end_sequence,
    limit_warning,
    preemption_warning,
)

BATCH = SignalPlan(signal.SIGUSR1, to_batch=True)
RANKS = SignalPlan(signal.SIGUSR1, to_batch=False)
TO_BATCH = (Delivery(Target.BATCH, (signal.SIGCONT, signal.SIGUSR1)),)
TO_RANKS = (Delivery(Target.RANKS, (signal.SIGCONT, signal.SIGUSR1)),)
TERM_TO_RANKS = (Delivery(Target.RANKS, (signal.SIGCONT, signal.SIGTERM)),)


@pytest.mark.parametrize(
    ("plan", "user_signal", "sent"),
    [
        (BATCH, True, TO_BATCH),
        (RANKS, True, TO_RANKS),
        (None, True, TERM_TO_RANKS),
        (BATCH, False, TERM_TO_RANKS),
        (RANKS, False, TERM_TO_RANKS),
        (None, False, TERM_TO_RANKS),
    ],
)
def test_who_is_signalled_when_a_preemption_begins(plan, user_signal, sent):
    assert preemption_warning(plan, user_signal=user_signal) == sent


@pytest.mark.parametrize(("plan", "sent"), [(BATCH, TO_BATCH), (RANKS, TO_RANKS), (None, ())])
def test_who_is_warned_before_the_time_limit(plan, sent):
    assert limit_warning(plan) == sent


@pytest.mark.parametrize("by", list(EndedBy))
def test_the_end_sequence_goes_to_everything(by):
    ending = (signal.SIGCONT, signal.SIGTERM)
    first = by in (EndedBy.PREEMPTION, EndedBy.TIME_LIMIT)
    twice = (Delivery(Target.RANKS, (signal.SIGTERM,)),) if first else ()
    assert end_sequence(by) == (*twice, Delivery(Target.BATCH_ALL, ending), Delivery(Target.RANKS, ending))


@pytest.mark.parametrize(
    ("ended", "slurm", "state", "requeued"),
    [
        (Ended(EndedBy.ITSELF, 0), "22.05", "COMPLETED", False),
        (Ended(EndedBy.ITSELF, 1), "24.11", "FAILED", False),
        (Ended(EndedBy.ITSELF, 0, in_grace=True), "22.05", "COMPLETED", False),
        (Ended(EndedBy.ITSELF, 85, in_grace=True), "22.05", "FAILED", False),
        (Ended(EndedBy.ITSELF, 0, in_grace=True), "24.11", "PREEMPTED", True),
        (Ended(EndedBy.ITSELF, 85, in_grace=True), "24.11", "PREEMPTED", True),
        (Ended(EndedBy.PREEMPTION, 137), "22.05", "PREEMPTED", True),
        (Ended(EndedBy.PREEMPTION, 0), "24.11", "PREEMPTED", True),
        (Ended(EndedBy.TIME_LIMIT, 137), "22.05", "TIMEOUT", False),
        (Ended(EndedBy.TIME_LIMIT, 0), "24.11", "TIMEOUT", False),
        (Ended(EndedBy.NODE_FAILURE, 137), "22.05", "NODE_FAIL", True),
        (Ended(EndedBy.REQUEUE, 75, in_grace=True), "22.05", "REQUEUED", True),
        (Ended(EndedBy.REQUEUE, 75), "24.11", "REQUEUED", True),
    ],
)
def test_what_becomes_of_the_job(ended, slurm, state, requeued):
    after = aftermath(ended, requeue=True, slurm=slurm)
    assert (after.state, after.requeued) == (state, requeued)


@given(
    st.builds(
        Ended, st.sampled_from([by for by in EndedBy if by is not EndedBy.REQUEUE]), st.integers(0, 255), st.booleans()
    ),
    st.sampled_from(["22.05", "24.11"]),
)
def test_a_job_that_may_not_be_requeued_never_is(ended, slurm):
    assert not aftermath(ended, requeue=False, slurm=slurm).requeued
