"""Times as Slurm and as people write them, and which sbatch options belong to a key."""

from __future__ import annotations

import pytest

from hpcresume.config.slurm_options import (
    long_option,
    option_key,
    option_of_variable,
    parse_time_limit,
    slurm_time,
    why_not,
)
from hpcresume.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("4h", 14400, "04:00:00"),
        ("1h30m", 5400, "01:30:00"),
        ("90s", 90, "00:01:30"),
        ("04:00:00", 14400, "04:00:00"),
        ("30:00", 1800, "00:30:00"),
        ("1-12", 129600, "1-12:00:00"),
        ("1-12:30", 131400, "1-12:30:00"),
        ("2-00:00:01", 172801, "2-00:00:01"),
        ("48:00:00", 172800, "2-00:00:00"),
        ("0.5s", 0.5, "00:00:01"),
        ("UNLIMITED", None, "UNLIMITED"),
        ("infinite", None, "UNLIMITED"),
    ],
)
def test_time_limits(text, seconds, written):
    assert parse_time_limit(text) == seconds
    assert slurm_time(seconds) == written
    assert parse_time_limit(written) in (seconds, 1.0)


@pytest.mark.parametrize("text", ["30", "0:00", "1:2:3:4", "-4h", "x", "", "1-", "٣:٠٠"])
def test_what_is_no_time_limit(text):
    with pytest.raises(ConfigError):
        parse_time_limit(text)


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--nodes=4", "resources.nodes"),
        ("--node=4", "resources.nodes"),
        ("--no-requeue", "requeue.enabled"),
        ("--sig=USR2", "requeue.warning_lead"),
        ("--wrap=x", ""),
        ("--parsable", ""),
        ("--gpus=8", None),
        ("--mem-bind=local", None),
        ("--time-min=1", "resources.time_min"),
        ("--mail-type=END", None),
        ("--dependency=singleton", None),
        ("--comment=x", None),
    ],
)
def test_options_that_belong_to_a_key_abbreviations_too(option, key):
    assert option_key(option) == key


@pytest.mark.parametrize(
    ("word", "long"),
    [("-t5", "--time=5"), ("-t=5", "--time=5"), ("-H", "--hold"), ("--time=5", "--time=5"), ("-Z", "-Z"), ("-", "-")],
)
def test_letters_are_long_options(word, long):
    assert long_option(word) == long


def test_what_cannot_be_given_says_why_and_what_to_do_instead():
    assert why_not("--dependency=singleton") is None
    assert why_not("--export=NONE") is None
    assert why_not("--time=5") == ("it has a key of its own", "the key resources.time")
    for option in ("--wra=x", "--wait", "--chdir=/", "--clusters=x", "--test-only", "--quiet", "--parsable", "--help"):
        reason = why_not(option)
        assert reason is not None
        assert all(reason)


def test_variables_of_sbatch_and_those_that_only_look_so():
    found = {name: option_of_variable(f"SBATCH_{name}") for name in ("ARRAY_INX", "TIMELIMIT", "JOB_NAME", "TIME")}
    assert found == {"ARRAY_INX": "array", "TIMELIMIT": "time", "JOB_NAME": "job-name", "TIME": None}
