"""What to do with the time that is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.policy.deadline import Plan, TimeLeft, choose, patience


@pytest.mark.parametrize(
    ("time", "plan"),
    [
        (TimeLeft(None, None), Plan.SAVE),
        (TimeLeft(None, 1000.0), Plan.SAVE),
        (TimeLeft(60.0, 20.0), Plan.SAVE),
        (TimeLeft(60.0, None), Plan.SAVE),
        (TimeLeft(20.0, 20.0), Plan.SAVE_WITHOUT_READ_BACK),
        (TimeLeft(1.0, None), Plan.SAVE_WITHOUT_READ_BACK),
        (TimeLeft(5.0, 20.0), Plan.KEEP_LAST),
        (TimeLeft(-3.0, 20.0), Plan.KEEP_LAST),
        (TimeLeft(60.0, 20.0, committed=True), Plan.KEEP_LAST),
        (TimeLeft(None, None, committed=True), Plan.KEEP_LAST),
    ],
)
def test_the_plan_follows_from_the_time_left_and_what_a_save_takes(time, plan):
    assert choose(time) is plan


@given(st.floats(-100, 10**4), st.floats(0, 10**4), st.floats(0.01, 10**4))
def test_more_time_never_means_a_lesser_plan(remaining, more, save):
    order = [Plan.KEEP_LAST, Plan.SAVE_WITHOUT_READ_BACK, Plan.SAVE]
    before, after = choose(TimeLeft(remaining, save)), choose(TimeLeft(remaining + more, save))
    assert order.index(before) <= order.index(after)


@pytest.mark.parametrize(("nbytes", "seconds"), [(0, 60.0), (10**9, 160.0), (10**12, 100_060.0)])
def test_ranks_that_move_bytes_are_given_longer(nbytes, seconds):
    assert patience(60.0, nbytes) == pytest.approx(seconds)
