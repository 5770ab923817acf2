"""NaN and infinity where a number has to be finite: an error of its own, before anything is made."""

from __future__ import annotations

import math

import pytest

import hpcresume as hr
from hpcresume.config.durations import parse_cadence, parse_duration
from hpcresume.errors import ConfigError, NonFiniteError
from hpcresume.session.streams import check_stream_options

BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize("option", ["every", "watchdog", "reaction", "keep", "save_failures"])
def test_every_option_of_a_session_that_is_a_number_must_be_finite(tmp_path, option, value):
    with pytest.raises(NonFiniteError, match="no finite number") as caught:
        hr.session(tmp_path / "run", **{option: value})
    assert caught.value.where == option
    assert caught.value.hint
    assert isinstance(caught.value, ConfigError)
    assert caught.value.exit_code == 78
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_so_must_the_number_of_steps_and_what_a_stream_is_given(tmp_path, value):
    with hr.session(tmp_path / "run", comm="single") as s:
        with pytest.raises(NonFiniteError):
            next(iter(s.steps(value)))
        for _ in s.steps(1):
            pass
    for given in ((value, 0, 0), (1, value, 0), (1, 0, value)):
        with pytest.raises(NonFiniteError) as caught:
            check_stream_options(*given)
        assert caught.value.hint


def test_a_duration_that_is_more_than_a_number_can_hold_is_one_of_them():
    with pytest.raises(NonFiniteError):
        parse_duration("9" * 400 + "h")


@pytest.mark.parametrize("digits", [13, 400, 5000])
def test_a_number_of_steps_that_no_training_has_is_refused(digits):
    with pytest.raises(ConfigError, match="more than any training has"):
        parse_cadence("9" * digits + " steps")
    assert parse_cadence("0" * digits + "5 steps").steps == 5
