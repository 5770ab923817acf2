"""The demo's last words: they hold what happened, and nothing is called identical that is not."""

import json
from dataclasses import replace

import pytest

from hpcresume.model import Cause, Skipped
from hpcresume.observe.history import RunHistory
from hpcresume.ops.demo.compare import Comparison, Difference, Samples
from hpcresume.ops.demo.damage import Damage
from hpcresume.ops.demo.verdict import TABLE, Report, as_json, headline, rows, scenario_differences, summary, title
from tests.ops.test_demo_plot import attempt

BAD = "g000000000080-a0002"
DAMAGE = Damage(BAD, "model/w", "state.h5", 5000, 3)
HISTORY = RunHistory(
    (
        attempt(1, Cause.PREEMPTED, 0, 40, 40, 0, 1000.0),
        attempt(2, Cause.CRASH, 40, 93, 60, 1, 1014.0),
        attempt(3, Cause.DONE, 60, 120, 120, 2, 1030.0, (Skipped(BAD, "bad bytes", "model/w", 4096),)),
    ),
    done=True,
)
REPORT = Report(
    steps=120, ranks=4, nodes=2, comparison=Comparison((), Samples(3840, 0, 0), 960, 668, 10**6), history=HISTORY,
    generations=("g000000000120-a0003",), damage=DAMAGE, seconds=50.0, verify_seconds={2: 0.5, 3: 0.25},
)  # fmt: skip


def test_the_object_has_the_documented_keys_and_is_json():
    found = json.loads(json.dumps(as_json(REPORT), allow_nan=False))
    assert found["identical"] is True
    assert [
        [a[k] for k in ("attempt", "cause", "start_step", "end_step", "restored_from", "lost_steps")]
        for a in found["attempts"]
    ] == [
        [1, "preempted", 0, 40, None, 0],
        [2, "crash", 40, 93, "g000000000040-a0001", 33],
        [3, "done", 60, 120, "g000000000060-a0002", 0],
    ]
    assert found["samples"] == {"seen": 3840, "duplicated": 0, "missed": 0}
    assert found["skipped"] == [{"generation": BAD, "reason": "bad bytes", "tensor": "model/w", "offset": 4096}]
    assert found["generations"] == ["g000000000120-a0003"]
    assert found["seconds"] == 50.0
    assert found["attempts"][0]["seconds"] == {"save": 0.1, "verify": None, "restore": None}


def test_the_table_has_a_row_an_attempt():
    table = rows(REPORT)
    assert [len(row) for row in table] == [len(TABLE)] * 3
    assert table[1] == ["2", "crash", "41-93", "33", "g000000000040-a0001", "0.100 s", "0.500 s", "0.100 s"]
    assert table[0][-2:] == ["-", "-"]
    widths = [max(len(row[i]) for row in [TABLE, *table]) for i in range(len(TABLE))]
    assert sum(widths) + 2 * (len(TABLE) - 1) <= 80, "it must fit a terminal"


def test_the_verdict_says_identical_only_when_it_is():
    assert headline(REPORT).startswith("IDENTICAL")
    assert "NOT" not in title(REPORT)
    difference = Difference("loss", "step 7, rank 2", "0x1p+0", "0x1p+1")
    other = replace(REPORT, comparison=replace(REPORT.comparison, differences=(difference,) * 30))
    assert headline(other) == "NOT IDENTICAL: 30 difference(s)"
    assert "NOT" in title(other)
    assert as_json(other)["identical"] is False
    lines = summary(other)
    assert "DIFFERS:  loss differs at step 7, rank 2: 0x1p+0 instead of 0x1p+1" in lines
    assert lines[-1].strip() == "and 10 more"


@pytest.mark.parametrize("samples", [Samples(3840, 1, 0), Samples(3840, 0, 1)])
def test_a_missed_or_doubled_sample_is_not_identical(samples):
    assert not replace(REPORT, comparison=replace(REPORT.comparison, samples=samples)).identical


def test_a_demo_in_which_everything_happened_has_nothing_to_say():
    assert scenario_differences(HISTORY, DAMAGE) == ()


def test_a_demo_in_which_something_did_not_happen_proves_nothing():
    first, second, third = HISTORY.attempts
    not_warned = RunHistory((replace(first, cause=Cause.CRASH), second, third), done=True)
    assert [d.where for d in scenario_differences(not_warned, DAMAGE)] == ["the attempts' ends"]
    assert [d.where for d in scenario_differences(HISTORY, None)] == ["what the restore skipped"]
    not_skipped = RunHistory((first, second, replace(third, skipped=())), done=True)
    assert [d.where for d in scenario_differences(not_skipped, DAMAGE)] == ["what the restore skipped"]
    nothing_lost = RunHistory((first, replace(second, counted_to=93), third), done=True)
    assert [d.where for d in scenario_differences(nothing_lost, DAMAGE)] == ["the kill"]
    assert scenario_differences(RunHistory((replace(first, cause=Cause.DONE),), done=True), None)
