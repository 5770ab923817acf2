"""Times and rhythms as people write them, and what they are told when they write something else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.config.durations import format_seconds, parse_cadence, parse_duration
from hpcresume.errors import ConfigError
from hpcresume.policy.cadence import Auto, EverySeconds, EverySteps


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("20min", 1200), ("1h30m", 5400), ("1h 30min", 5400), ("2 hours", 7200), ("1.5h", 5400),
        (" 5 Minutes ", 300), ("1d", 86400), ("250ms", 0.25), (".5s", 0.5), ("1m1s", 61),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "cadence"),
    [
        ("auto", Auto()), ("AUTO ", Auto()), ("20min", EverySeconds(1200)), ("500 steps", EverySteps(500)),
        ("auto, at most 20min", Auto(1200)), ("Auto , at most 5 %", Auto(share=0.05)),
        ("auto, at most 2.5%, at most 1h30m", Auto(5400, 0.025)),
        ("1 step", EverySteps(1)), ("10_000steps", EverySteps(10000)), ("10,000 steps", EverySteps(10000)),
    ],
)  # fmt: skip
def test_cadences_are_times_numbers_of_steps_or_auto(text, cadence):
    assert parse_cadence(text) == cadence


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("20", '"20s" or "20 steps"'), (600, '"600s" or "600 steps"'), ("20mn", '"20min"'),
        ("20 minuets", '"20minutes"'), ("500 stps", '"500 steps"'), ("1,5h", '"1.5h"'), ("-5min", '"5min"'),
        ("atuo", '"auto"'), ("3 hous", '"3hours"'),
    ],
)  # fmt: skip
def test_a_bad_rhythm_is_answered_with_the_nearest_valid_form(text, nearest):
    with pytest.raises(ConfigError) as caught:
        parse_cadence(text)
    assert (caught.value.where, caught.value.hint) == ("every", nearest)
    parse_cadence(nearest.split('"')[1])


@pytest.mark.parametrize(
    "text", ["", "never", "0 steps", "0s", "nan", "inf", "infs", "nans", "1e9s", "5 parsecs", "steps", None, True,
             "auto at most 20min", "auto, 20min", "auto, at most", "auto,", "auto, at most 0%", "auto, at most 90%",
             "auto, at most 5%, at most 6%", "auto, at most 5min, at most 6min", "auto, at most 0s", "auto-matic",
             [], 0, -3, math.nan, math.inf, "20min 5", "5 min steps", "9" * 400 + "h", "²0s"],
)  # fmt: skip
def test_nonsense_is_refused_with_the_forms_that_are_valid(text):
    with pytest.raises(ConfigError) as caught:
        parse_cadence(text)
    assert caught.value.hint


@given(st.text(max_size=30))
def test_no_text_at_all_brings_the_parser_down(text):
    try:
        cadence = parse_cadence(text)
    except ConfigError as error:
        assert error.where == "every"
    else:
        assert isinstance(cadence, Auto) or vars(cadence).popitem()[1] > 0


@given(st.integers(1, 10**7))
def test_a_formatted_duration_reads_back_as_itself(seconds):
    assert parse_duration(format_seconds(seconds)) == seconds
