from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.config.timetable import (
    AtStep,
    AtTime,
    EmulatedJob,
    NodeKill,
    Preemption,
    RankKill,
    SignalPlan,
    parse_moment,
    parse_node_kill,
    parse_preemption,
    parse_rank_kill,
    parse_seconds,
    parse_signal,
)
from hpcresume.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5.0), ("0", 0.0), ("0s", 0.0), ("1.5", 1.5), ("500ms", 0.5), ("2min", 120.0), ("1h", 3600.0)],
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "5 parsecs", "nan", "inf", "1e9", "٥s", "5s5"])
def test_what_is_no_duration_is_refused_with_the_option_named(text):
    with pytest.raises(ConfigError, match="--grace"):
        parse_seconds(text, "--grace")


def test_moments():
    assert parse_moment("5s") == AtTime(5.0)
    assert parse_moment("step:40") == AtStep(40)
    assert parse_preemption("step:40") == Preemption(AtStep(40))
    assert parse_rank_kill("8s:2") == RankKill(AtTime(8.0), 2)
    assert parse_rank_kill("step:40:2") == RankKill(AtStep(40), 2)
    assert parse_node_kill("12s:n1") == NodeKill(AtTime(12.0), 1)
    assert parse_node_kill("step:40:1") == NodeKill(AtStep(40), 1)


def test_an_entry_prints_as_it_was_typed():
    entries = (Preemption(AtStep(4)), RankKill(AtTime(8.5), 2), NodeKill(AtStep(3), 0))
    assert list(map(str, entries)) == ["--preempt step:4", "--kill-rank 8.5s:2", "--kill-node step:3:n0"]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_preemption, "step:"), (parse_preemption, "step:x"), (parse_preemption, "step:-1"),
        (parse_rank_kill, "8s"), (parse_rank_kill, "step:40"), (parse_rank_kill, "8s:x"), (parse_rank_kill, ":2"),
        (parse_node_kill, "8s:m1"), (parse_node_kill, "8s:n"), (parse_node_kill, "n1"),
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused(parse, text):
    with pytest.raises(ConfigError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("B:USR1@60", SignalPlan(signal.SIGUSR1, True, 60.0)),
        ("USR1@30", SignalPlan(signal.SIGUSR1, False, 30.0)),
        ("usr2", SignalPlan(signal.SIGUSR2, False, 60.0)),
        ("B:SIGTERM@5", SignalPlan(signal.SIGTERM, True, 5.0)),
        ("10@30", SignalPlan(signal.SIGUSR1, False, 30.0)),
        ("none", None),
    ],
)
def test_signals_are_written_as_for_sbatch(text, plan):
    assert parse_signal(text) == plan


@pytest.mark.parametrize("text", ["", "B:", "USR9", "B:USR1@", "@60", "99", "USR1@-5", "B:B:USR1", "0"])
def test_what_is_no_signal_is_refused(text):
    with pytest.raises(ConfigError, match="--signal"):
        parse_signal(text)


@given(st.text(max_size=20))
def test_no_text_gives_anything_but_a_value_or_a_typed_error(text):
    for parse in (parse_seconds, parse_preemption, parse_rank_kill, parse_node_kill, parse_signal):
        try:
            parse(text)
        except ConfigError:
            continue


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"command": ()}, "no command"),
        ({"nodes": 0}, "-N"),
        ({"tasks_per_node": 0}, "-n"),
        ({"max_attempts": 0}, "--max-attempts"),
        ({"slurm": "19.05"}, "--slurm"),
        ({"time_limit": 0.0}, "--time-limit"),
        ({"timetable": (RankKill(AtTime(1), 4),)}, "no rank 4"),
        ({"timetable": (NodeKill(AtTime(1), 2),)}, "no node n2"),
    ],
)
def test_a_job_that_cannot_be_is_refused(changes, named):
    with pytest.raises(ConfigError, match=named):
        EmulatedJob(**{"command": ("x",), "nodes": 2, "tasks_per_node": 2, **changes})


def test_the_list_of_nodes_is_slurms_short_form():
    assert [EmulatedJob(("x",), nodes=n).node_list for n in (1, 2, 12)] == ["n0", "n[0-1]", "n[0-11]"]
