"""How long before its end an attempt is warned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.policy.deadline import Plan, TimeLeft, choose
from hpcresume.policy.lead import LONGEST_LEAD, Timings, needed, needed_lead, percentile


def test_without_a_measured_save_nothing_is_known():
    assert needed_lead(Timings(longest_step=10.0, leaving=3.0)) is None
    assert needed(Timings(begin=100.0)) is None


@pytest.mark.parametrize(
    ("timings", "allocation", "seconds"),
    [
        (Timings((30.0,)), None, 100),  # 3.25 × 30 + 2, rounded up
        (Timings((30.0,) * 20, longest_step=12.0, leaving=5.0), None, 58),  # 12 + 1.35 × 30 + 5
        (Timings((0.01,) * 20), None, 10),
        (Timings((600.0,) * 20), 2400, 600),
        (Timings((10.0,)), 20, 5),
        (Timings((1e6,)), None, LONGEST_LEAD),
        (Timings((30.0,) * 18 + (60.0, 90.0)), None, 83),  # the second slowest of twenty: 1.35 × 60 + 2
    ],
)
def test_the_lead_is_a_step_a_slow_save_and_leaving_within_a_quarter_of_the_allocation(timings, allocation, seconds):
    lead = needed_lead(timings, allocation)
    assert lead is not None
    assert lead.seconds == seconds


def test_it_says_what_it_is_made_of():
    lead = needed_lead(Timings((30.0,) * 20, longest_step=12.0, leaving=5.0))
    assert lead is not None
    assert lead.why == "a save takes up to 30.0 s, a step 12.0 s, leaving 5.0 s"


def test_an_allocation_is_of_use_when_it_can_begin_work_a_step_and_save_it():
    assert needed(Timings((30.0,) * 20, longest_step=12.0, leaving=5.0, begin=100.0)) == 158


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=20), st.floats(0, 1e4), st.floats(0, 100), st.floats(0, 1)
)  # fmt: skip
def test_a_warning_with_this_lead_is_always_answered_by_a_full_save(saves, step, leaving, into_the_step):
    """Whatever was measured, and wherever in a step the warning came: unless Slurm allows no longer lead."""
    lead = needed_lead(Timings(tuple(saves), step, leaving))
    assert lead is not None
    left = lead.seconds - into_the_step * step
    if lead.seconds < LONGEST_LEAD:
        assert choose(TimeLeft(left, percentile(saves, 0.95))) is Plan.SAVE


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
