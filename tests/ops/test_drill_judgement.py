"""A drill's save against the time that a real end would leave: enough, just enough, too little, or nobody knows."""

from __future__ import annotations

import pytest

from hpcresume.ops.doctor.given import Given, given_time
from hpcresume.ops.doctor.timing import Measured
from hpcresume.ops.drill_judgement import Asked, Judged, judge
from hpcresume.policy.lead import Timings
from hpcresume.slurm.configuration import Configuration
from hpcresume.slurm.qos import Qos
from hpcresume.slurm.submission import Partition

LOW = Given("REQUEUE", 30.0, 30.0, "partition low", sends_user_signal=True)
NO_GRACE = Given("REQUEUE", 0.0, 25.0, "partition low", sends_user_signal=True)


def measured(save: float, count: int = 20) -> Measured:
    return Measured(Timings((save,) * count))


def grace(used: float | None, given: Given = LOW, found: Measured | None = None) -> Judged:
    (judged,) = judge("warn", used, given, Asked(), found or measured(used or 1.0))
    assert judged.against == "grace"
    return judged


@pytest.mark.parametrize(
    ("used", "given", "seconds", "verdict", "words"),
    [
        (4.1, LOW, 30.0, "ok", "saved after 4.1 s; the grace of partition low is 30 s: 7.3 times that"),
        (0.02, LOW, 30.0, "ok", "saved after 0.0 s; the grace of partition low is 30 s: 300 times that"),
        (22.0, LOW, 30.0, "warn", "is 30 s, a save takes 22 s, which fits with nothing to spare (32 s with a margin)"),
        (41.0, LOW, 30.0, "bad", "saved after 41.0 s, and the grace of partition low is 30 s: too little"),
        (2.0, NO_GRACE, 25.0, "ok", "partition low has GraceTime=0, and KillWait leaves 25 s: 12 times"),
        (26.0, NO_GRACE, 25.0, "bad", "GraceTime=0, and KillWait leaves 25 s: too little"),
        (None, LOW, 30.0, "unknown", "no save that began after the order was committed"),
    ],
)  # fmt: skip
def test_the_save_is_held_against_the_grace(used, given, seconds, verdict, words):
    judged = grace(used, given)
    assert (judged.given, judged.used, judged.verdict) == (seconds, used, verdict)
    assert words in judged.what
    if verdict in ("warn", "bad"):
        assert "make the save shorter" in judged.hint
        assert "or ask for GraceTime=" in judged.hint


def test_a_quick_save_in_the_drill_does_not_hide_that_saves_of_this_run_are_slow():
    judged = grace(4.0, LOW, measured(80.0))
    assert judged.verdict == "bad"
    assert judged.what.endswith("is 30 s, a save takes 80 s: a preemption loses what was done since the last save")


def test_without_any_measured_save_too_little_is_too_little():
    judged = grace(41.0, LOW, Measured())
    assert (judged.verdict, "ask for GraceTime=52" in judged.hint) == ("bad", True)


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (Given("OFF", 0.0, 30.0, "partition high"), "ok", "nobody preempts a job of partition high"),
        (Given("SUSPEND", 30.0, 30.0, "partition low"), "ok", "by being suspended"),
        (Given("QOS", None, 30.0), "unknown", "the grace of a preemption is not known"),
        (Given(), "unknown", "the grace of a preemption is not known"),
    ],
)
def test_where_there_is_no_grace_or_nobody_knows_it_that_is_said(given, verdict, words):
    judged = grace(41.0, given)
    assert (judged.given, judged.verdict, words in judged.what) == (None, verdict, True)


def test_where_a_preemption_sends_another_signal_than_the_drill_that_is_said():
    told = Given("REQUEUE", 30.0, 30.0, "partition low", sends_user_signal=False)
    assert "a preemption sends TERM to the ranks here" in grace(1.0, told).what


def test_a_requeue_is_held_against_killwait_and_a_lost_node_against_nothing():
    (judged,) = judge("requeue", 2.0, LOW, Asked(5.0), measured(1.0))
    assert (judged.against, judged.given, judged.verdict) == ("KillWait", 30.0, "ok")
    assert judge("node", None, LOW, Asked(5.0), measured(1.0)) == ()


@pytest.mark.parametrize(
    ("used", "lead", "supervised", "verdict", "words"),
    [
        (1.0, 60.0, False, "ok", "--signal warns 60 s before the time limit: 60 times that"),
        (41.0, 30.0, False, "bad", "too little"),
        (41.0, 30.0, True, "ok", "hpcresume launch warns earlier by its own clock"),
        (41.0, 60.0, False, "ok", "1.5 times that"),
    ],
)
def test_the_save_is_held_against_the_jobs_own_lead(used, lead, supervised, verdict, words):
    roomy = Given("REQUEUE", 300.0, 30.0, "partition low", sends_user_signal=True)
    _, judged = judge("warn", used, roomy, Asked(lead, supervised), measured(used))
    assert (judged.against, judged.given, judged.verdict) == ("lead", lead, verdict)
    assert words in judged.what
    assert ("#SBATCH --signal=B:USR1@" in judged.hint) == (verdict == "bad")


PREEMPTS = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE", "KillWait": "30 sec"}
PART = Partition("low", True, True, 4, None, None, 30, preempt_mode="CANCEL")


@pytest.mark.parametrize(
    ("values", "qos", "mode", "seconds", "whose"),
    [
        (PREEMPTS, None, "CANCEL", 30.0, "partition low"),
        ({**PREEMPTS, "PreemptType": "preempt/none"}, None, "OFF", 30.0, "partition low"),
        ({**PREEMPTS, "PreemptType": "preempt/qos"}, None, "QOS", None, ""),
        ({**PREEMPTS, "PreemptType": "preempt/qos"}, Qos("standby", 7.0), "REQUEUE", 7.0, "QOS standby"),
        ({**PREEMPTS, "PreemptType": "preempt/qos"}, Qos("standby", 7.0, "SUSPEND"), "SUSPEND", 7.0, "QOS standby"),
    ],
)
def test_grace_and_mode_are_the_partitions_or_those_of_the_jobs_qos(values, qos, mode, seconds, whose):
    given = given_time(Configuration(values), PART, qos)
    assert (given.mode, given.grace, given.kill_wait, given.whose) == (mode, seconds, 30.0, whose)


def test_nothing_is_made_up_where_slurm_tells_nothing():
    assert given_time(None, None, None) == Given()
    assert given_time(None, PART, None) == Given(grace=30, whose="partition low")
