from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcresume.errors import SlurmError
from hpcresume.slurm.job_text import parse_job, parse_time
from tests.slurm_text.records import record

FAKE = " UserId=eve(0) GroupId=eve(0) JobState=COMPLETED Reason=x PreemptTime=1999-01-01T00:00:00 "


def test_a_preempted_job_shows_when_and_until_when():
    facts = parse_job(record(end="2024-05-06T08:00:00", preempted="2024-05-06T07:59:00", restarts="3"), "12")
    assert (facts.state, facts.restarts, facts.requeueable) == ("RUNNING", 3, True)
    assert facts.end is not None
    assert facts.preempted_at is not None
    assert facts.end - facts.preempted_at == 60.0


def test_unset_times_are_none():
    facts = parse_job(record(), "12")
    assert (facts.end, facts.preempted_at) == (None, None)


def test_times_are_read_in_this_machines_zone():
    assert parse_time("2024-05-06T07:08:09") == time.mktime((2024, 5, 6, 7, 8, 9, 0, 0, -1))
    for text in ("None", "N/A", "Unknown", "", "2024-13-41T99:00:00", "2024-05-06", "٢٠٢٤-05-06T07:08:09"):
        assert parse_time(text) is None


def test_one_task_of_an_array_is_asked_for_by_both_numbers():
    text = record(job_id="77 ArrayJobId=70 ArrayTaskId=3")
    assert parse_job(text, "70_3").state == "RUNNING"
    with pytest.raises(SlurmError, match="not this job's"):
        parse_job(text, "70_4")


@pytest.mark.parametrize("name", ["a b", "a|b", "a\nb", "x=y", "", "$(touch x)", "JobState=FAILED", "é" * 50])
def test_a_job_name_of_any_text_is_survived(name):
    assert parse_job(record(name=name), "12", name=name).state == "RUNNING"
    assert parse_job(record(name=name), "12").state == "RUNNING"


def test_a_job_name_that_poses_as_fields_is_cut_off_by_its_known_text():
    facts = parse_job(record(name=FAKE), "12", name=FAKE)
    assert (facts.state, facts.preempted_at) == ("RUNNING", None)


def test_a_job_name_that_poses_as_fields_is_refused_when_the_name_is_not_known():
    with pytest.raises(SlurmError, match="more than one way"):
        parse_job(record(name=FAKE), "12")
    with pytest.raises(SlurmError, match="more than one way"):
        parse_job(record(name=FAKE), "12", name="renamed since")


@pytest.mark.parametrize("field", ["command", "workdir", "comment"])
def test_fields_faked_after_the_trusted_ones_are_not_read(field):
    facts = parse_job(record(**{field: "x JobState=FAILED PreemptTime=1999-01-01T00:00:00"}), "12")
    assert (facts.state, facts.preempted_at) == ("RUNNING", None)


@pytest.mark.parametrize(
    "text", ["", "slurm_load_jobs error", "JobId=13 JobName=x JobState=RUNNING", record(state="?")]
)
def test_what_is_no_record_of_this_job_is_a_typed_error(text):
    with pytest.raises(SlurmError):
        parse_job(text, "12")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.text(max_size=40), st.text(max_size=60))
def test_no_user_text_changes_what_is_trusted(name, command, comment):
    text = record(name=name, command=command, comment=comment, end="2024-05-06T08:00:00")
    facts = parse_job(text, "12", name=name)
    assert (facts.state, facts.preempted_at) == ("RUNNING", None)
    assert facts.end is not None


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=400), st.text(alphabet="JobIdState=NameUsrG() 12\n\t", max_size=400)))
def test_garbage_gives_a_typed_error_or_facts_and_nothing_else(text):
    for candidate in (text, "JobId=12 JobName=" + text):
        try:
            parse_job(candidate, "12")
        except SlurmError:
            continue


def test_a_task_of_an_array_with_a_limit_is_read_like_any_other():
    """`--array=0-9%2`: one field more, before the name."""
    text = record(job_id="77 ArrayJobId=70 ArrayTaskId=3 ArrayTaskThrottle=2")
    assert parse_job(text, "70_3", name="train").state == "RUNNING"
    with pytest.raises(SlurmError):
        parse_job(text, "70_4", name="train")


def test_a_batch_script_that_died_of_a_signal_is_seen():
    assert parse_job(record(), "12").killed_by is None
    assert parse_job(record().replace("ExitCode=0:0", "ExitCode=0:10"), "12").killed_by == 10
