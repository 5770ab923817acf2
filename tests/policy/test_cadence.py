"""When to save next."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.policy.cadence import (
    LONGEST,
    SHORTEST,
    Auto,
    EverySeconds,
    EverySteps,
    SaveHistory,
    next_cadence_step,
    retry_delay,
    save_is_due,
    seconds_between_saves,
    young_interval,
)


@pytest.mark.parametrize(
    ("cadence", "step", "history", "due"),
    [
        (EverySteps(10), 9, SaveHistory(0, 0), False),
        (EverySteps(10), 10, SaveHistory(0, 0), True),
        (EverySteps(10), 10, SaveHistory(10, 0), False),
        (EverySteps(10), 17, SaveHistory(13, 0), False),
        (EverySteps(10), 20, SaveHistory(13, 0), True),
        (EverySteps(10), 23, SaveHistory(13, 0), True),
        (EverySeconds(60), 5, SaveHistory(0, 59.9), False),
        (EverySeconds(60), 5, SaveHistory(0, 60), True),
        (EverySeconds(60), 5, SaveHistory(5, 600), False),
        (Auto(), 5, SaveHistory(0, 59), False),
        (Auto(), 5, SaveHistory(0, 61), True),
        (Auto(), 5, SaveHistory(0, 61, save_seconds=30), False),
    ],
)
def test_a_save_is_due_by_its_rhythm(cadence, step, history, due):
    assert save_is_due(cadence, step, history) is due


@pytest.mark.parametrize("cadence", [EverySteps(1000), EverySeconds(3600), Auto()])
def test_a_failed_save_is_tried_again_before_its_rhythm_says_so_but_not_at_once(cadence):
    assert not save_is_due(cadence, 11, SaveHistory(10, 9, failures=1))
    assert save_is_due(cadence, 11, SaveHistory(10, 10, failures=1))
    assert not save_is_due(cadence, 11, SaveHistory(10, 19, failures=2))
    assert save_is_due(cadence, 11, SaveHistory(10, 20, failures=2))


@given(st.integers(1, 10**6), st.one_of(st.none(), st.floats(0.1, 10**6)))
def test_retries_back_off_and_are_never_rarer_than_the_rhythm(failures, interval):
    delay = retry_delay(failures, interval)
    assert 0 < delay <= (math.inf if interval is None else interval)
    assert delay <= retry_delay(failures + 1, interval) <= 300


def test_auto_is_youngs_interval_within_bounds():
    assert young_interval(10, 20000) == pytest.approx(632.4555)
    assert seconds_between_saves(Auto(20000), 10) == pytest.approx(632.4555)
    assert seconds_between_saves(Auto(), 0.001) == SHORTEST
    assert seconds_between_saves(Auto(), 10**6) == LONGEST


@given(st.floats(0.1, 1000), st.floats(10**4, 10**6))
def test_youngs_interval_loses_least_time_of_all(save, mean):
    def lost(interval):
        return save / interval + interval / 2 / mean

    best = young_interval(save, mean)
    assert lost(best) <= min(lost(best * 0.9), lost(best * 1.1))


@given(st.integers(1, 1000), st.integers(0, 10**6))
def test_the_next_step_by_count_is_the_next_multiple(every, step):
    following = next_cadence_step(EverySteps(every), step)
    assert following > step
    assert following - step <= every
    assert following % every == 0
    assert next_cadence_step(EverySeconds(5), step) is None
