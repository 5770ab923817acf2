"""How often a run is interrupted without a warning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcresume.policy.failures import PRIOR, Exposure, mean_time

HOUR = 3600.0


def test_before_anything_is_known_it_is_what_is_likely():
    assert mean_time(Exposure()) == 6 * HOUR


def test_the_first_failure_does_not_swing_it():
    assert 0.6 * mean_time(Exposure()) < mean_time(Exposure(1, HOUR)) < mean_time(Exposure())


def test_many_failures_outweigh_what_was_thought():
    assert 1.0 * HOUR < mean_time(Exposure(50, 50 * HOUR)) < 1.25 * HOUR


def test_long_work_without_a_failure_makes_it_longer():
    assert mean_time(Exposure(0, 30 * 24 * HOUR)) > 300 * HOUR


@given(st.integers(0, 1000), st.floats(0, 1e9), st.floats(0, 1e9))
def test_time_without_a_failure_never_makes_it_shorter_and_a_failure_never_longer(failures, seconds, more):
    seen = Exposure(failures, seconds)
    assert mean_time(seen) <= mean_time(seen + Exposure(0, more))
    assert mean_time(seen + Exposure(1, 0)) < mean_time(seen)
    assert mean_time(seen) >= min(PRIOR.seconds / PRIOR.failures, seconds / max(failures, 1)) * 0.999
