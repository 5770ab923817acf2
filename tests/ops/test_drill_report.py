"""What a drill has shown, judged: lost or not, back or not, the same curve or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcresume.observe.ledger_reader import MetricRecord
from hpcresume.ops.drill_judgement import Judged
from hpcresume.ops.drill_kill import is_rank
from hpcresume.ops.drill_report import Comparison, DrillReport, as_json, compare_curves, sentences

BACK = DrillReport(
    "scancel --batch --signal=USR1 7", True, 1, 70, after=2, warned_after=0.2, warned_step=71, saved_after=0.3,
    saved="g000000000071-a0001", saved_step=71, save_seconds=0.09, ended_after=1.1, cause="operator", again_after=12.7,
    restored="g000000000071-a0001", restored_step=71, restore_seconds=0.07, first_step=72, first_step_after=13.0,
    lost=0, curve=Comparison(),
)  # fmt: skip


TIGHT = Judged("grace", 30.0, 25.0, "warn", "saved after 25.0 s; the grace is 30 s: 1.2 times that", "save less")


def but(**changes: object) -> DrillReport:
    return DrillReport(**{**vars(BACK), **changes})  # type: ignore[arg-type]


def metrics(**by_step: float) -> list[MetricRecord]:
    return [MetricRecord(int(key[1:]), 0.0, {"loss": value}) for key, value in by_step.items()]


@pytest.mark.parametrize(
    ("report", "verdict", "code"),
    [
        (BACK, "nothing lost", 0),
        (but(lost=3, curve=Comparison(3)), "lost", 1),
        (but(skipped=("g1",)), "lost", 1),
        (but(curve=Comparison(2, (5,))), "lost", 1),
        (but(problem="held"), "not back", 77),
        (but(problem="held", lost=9), "not back", 77),
        (but(judged=(TIGHT,)), "too tight", 3),
        (but(judged=(replace(TIGHT, verdict="bad"),)), "too tight", 3),
        (but(judged=(replace(TIGHT, verdict="unknown"), replace(TIGHT, verdict="ok"))), "nothing lost", 0),
        (but(judged=(TIGHT,), lost=3), "lost", 1),
        (but(judged=(TIGHT,), problem="held"), "not back", 77),
    ],
)
def test_the_verdict_and_the_exit_code(report, verdict, code):
    assert (report.verdict, report.exit_code, as_json(report)["verdict"]) == (verdict, code, verdict)


def test_repeated_steps_are_compared_to_the_last_bit():
    before = metrics(s5=1.0, s6=0.1 + 0.2, s7=float("nan"), s8=4.0)
    assert compare_curves(before, metrics(s6=0.1 + 0.2, s7=float("nan"), s9=1.0)) == Comparison(2)
    assert compare_curves(before, metrics(s6=0.3, s7=1.0)) == Comparison(2, (6, 7))
    assert compare_curves(before, []) == Comparison()


def test_what_was_judged_is_a_row_with_what_to_try():
    rows = dict(sentences(but(judged=(TIGHT,))))
    assert rows["grace"] == "saved after 25.0 s; the grace is 30 s: 1.2 times that (try: save less)"
    assert list(rows)[2:4] == ["saved", "grace"]
    assert as_json(but(judged=(TIGHT,)))["judged"] == [
        {"against": "grace", "given": 30.0, "used": 25.0, "verdict": "warn", "what": TIGHT.what, "try": "save less"}
    ]


def test_the_report_tells_what_happened_in_order():
    rows = dict(sentences(but(lost=3, curve=Comparison(3))))
    assert list(rows)[:6] == ["ordered", "warned", "saved", "ended", "ran again", "restored"]
    assert rows["curve"] == "the same to the last bit in all 3 repeated steps that were logged"
    assert "DIFFERENT in 1 of 3" in dict(sentences(but(lost=3, curve=Comparison(3, (5,)))))["curve"]
    assert "nothing to compare" in dict(sentences(but(lost=3, curve=Comparison())))["curve"]
    deaf = dict(sentences(but(warned_after=None, saved=None, after=0, again_after=None, restored=None, lost=None)))
    assert (deaf["warned"], deaf["saved"]) == (
        "the session heard nothing",
        "no save that began after the order was committed",
    )
    assert "TERM of the end" in dict(sentences(but(warned=False)))["warned"]


@pytest.mark.parametrize(
    ("environ", "killed"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURMD_NODENAME": "n2"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967291", "SLURM_PROCID": "0", "SLURMD_NODENAME": "n2"}, False),
        ({"SLURM_JOB_ID": "7", "HPCRESUME_SUPERVISED": "1", "SLURMD_NODENAME": "n2"}, True),
        ({"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n2"}, False),
        ({"SLURM_JOB_ID": "8", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURMD_NODENAME": "n2"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "3", "SLURM_PROCID": "0", "SLURMD_NODENAME": "n2"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURMD_NODENAME": "n1"}, False),
        ({}, False),
    ],
)
def test_only_the_ranks_of_this_job_on_this_node_are_killed(environ, killed):
    assert is_rank(environ, "7", {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "3", "SLURMD_NODENAME": "n2"}) is killed


def test_a_task_of_an_array_is_told_from_the_others():
    ours = {"SLURM_STEP_ID": "3", "SLURMD_NODENAME": "n2"}
    task = {
        **ours,
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "0",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_JOB_ID": "9",
    }
    assert is_rank(task, "7_2", ours)
    assert not is_rank(task, "7_3", ours)
