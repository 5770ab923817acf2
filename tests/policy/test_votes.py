"""How many steps lie between two votes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcresume.policy.votes import MOST_STEPS, steps_until_next_vote

COMMON = {"previous": 1000, "step": 0, "total": 10**6, "forced": None}


def test_a_reaction_of_zero_means_a_vote_at_every_step():
    assert steps_until_next_vote(**COMMON, step_seconds=1e-6, reaction=0) == 1


def test_slow_steps_are_voted_on_every_time_and_quick_ones_as_rarely_as_the_reaction_allows():
    assert steps_until_next_vote(**COMMON, step_seconds=3.0, reaction=0.25) == 1
    assert steps_until_next_vote(**COMMON, step_seconds=0.05, reaction=0.25) == 5
    assert steps_until_next_vote(**COMMON, step_seconds=1e-6, reaction=0.25) == MOST_STEPS


def test_it_begins_with_every_step_and_at_most_doubles():
    gaps, gap, step = [], 1, 0
    for _ in range(7):
        gap = steps_until_next_vote(previous=gap, step=step, total=10**6, step_seconds=1e-5, reaction=0.25, forced=None)
        step += gap
        gaps.append(gap)
    assert gaps == [2, 4, 8, 16, 32, 32, 32]
    assert steps_until_next_vote(**{**COMMON, "previous": 1}, step_seconds=None, reaction=0.25) == 1


@given(
    st.integers(1, 64), st.integers(0, 10**6), st.integers(1, 10**4), st.floats(0, 100), st.floats(0, 100),
    st.one_of(st.none(), st.integers(1, 10**4)),
)  # fmt: skip
def test_no_vote_is_ever_skipped_at_the_end_or_where_a_save_is_due(previous, step, left, seconds, reaction, due):
    forced = None if due is None else step + due
    gap = steps_until_next_vote(
        previous=previous, step=step, total=step + left, step_seconds=seconds, reaction=reaction, forced=forced
    )
    assert 1 <= gap <= min(left, MOST_STEPS, 2 * previous)
    assert due is None or gap <= due
