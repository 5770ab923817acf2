"""When to save next."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.policy.cadence import (
    FIRST_SAVE,
    LONGEST,
    SHORTEST,
    Auto,
    EverySeconds,
    EverySteps,
    SaveHistory,
    choose_interval,
    daly_interval,
    next_cadence_step,
    retry_delay,
    save_is_due,
    seconds_between_saves,
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
        (Auto(), 5, SaveHistory(0, 605, save_seconds=10), False),
        (Auto(), 5, SaveHistory(0, 605, save_seconds=10, mean_time=3600), True),
        (Auto(60), 5, SaveHistory(0, 61, save_seconds=30), True),
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


@pytest.mark.parametrize(("hours", "minutes"), [(24, 117), (6, 57), (0.25, 9.1)])
def test_dalys_interval_is_that_of_the_figures_in_his_paper(hours, minutes):
    """Figures 3, 4 and 5: saves of five minutes, and so many hours between failures."""
    assert daly_interval(300, hours * 3600) / 60 == pytest.approx(minutes, rel=0.006)


def test_where_a_save_takes_longer_than_failures_leave_there_is_one_a_failure():
    assert daly_interval(100, 50) == 50
    assert daly_interval(100, 49) == 49


@given(st.floats(0.1, 1000), st.floats(3600, 10**6))
def test_dalys_interval_loses_least_time_of_all(save, mean):
    def wall(interval):
        """Seconds for a second of work, restarts left out: equation (20)."""
        return mean * math.expm1((interval + save) / mean) / interval

    best = daly_interval(save, mean)
    assert wall(best) <= 1.001 * min(wall(best * 0.7), wall(best * 0.9), wall(best * 1.1), wall(best * 1.4))


@pytest.mark.parametrize(
    ("auto", "save", "mean", "seconds", "why"),
    [
        (Auto(), None, 3600, FIRST_SAVE, "the first save measures what one costs"),
        (Auto(20), None, 3600, 20, "never longer than asked"),
        (Auto(), 10, 21600, 650.6, "this loses least time"),
        (Auto(), 0.001, 3600, SHORTEST, "never more often than this"),
        (Auto(), 300, 10**6, LONGEST, "never longer than this"),
        (Auto(1200), 300, 10**6, 1200, "never longer than asked"),
        (Auto(), 60, 1800, 540, "saves take 10% of the time and no more"),
        (Auto(share=0.05), 60, 1800, 1140, "saves take 5% of the time and no more"),
        (Auto(600, share=0.05), 60, 1800, 600, "never longer than asked"),
        (Auto(), 3000, 21600, 27000, "saves take 10% of the time and no more"),
        (Auto(30), 0.001, 3600, 30, "never longer than asked"),
    ],
)
def test_auto_chooses_within_what_is_asked_and_says_why(auto, save, mean, seconds, why):
    chosen = choose_interval(auto, save, mean)
    assert chosen.seconds == pytest.approx(seconds, rel=1e-3)
    assert chosen.why == why
    assert seconds_between_saves(auto, save, mean) == chosen.seconds


@given(
    st.one_of(st.none(), st.floats(1, 10**5)), st.floats(0.001, 0.5), st.one_of(st.none(), st.floats(1e-6, 10**6)),
    st.floats(1, 10**8),
)  # fmt: skip
def test_auto_is_never_longer_than_asked_and_saves_take_no_more_than_their_share(at_most, share, save, mean):
    seconds = choose_interval(Auto(at_most, share), save, mean).seconds
    assert 0 < seconds <= (math.inf if at_most is None else at_most)
    if save is not None and at_most is None:
        assert save / (save + seconds) <= share * 1.000001


@given(st.integers(1, 1000), st.integers(0, 10**6))
def test_the_next_step_by_count_is_the_next_multiple(every, step):
    following = next_cadence_step(EverySteps(every), step)
    assert following > step
    assert following - step <= every
    assert following % every == 0
    assert next_cadence_step(EverySeconds(5), step) is None
