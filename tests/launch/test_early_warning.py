"""The supervisor's own clock: when it tells the ranks, and what it says of an allocation that is too short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcresume.io.paths import RunPaths
from hpcresume.launch.deadline import deadline_facts
from hpcresume.launch.early_warning import EarlyWarning, Look, too_short
from hpcresume.model import Cause
from hpcresume.policy.cause import Evidence, SignalReceived, name_cause
from hpcresume.policy.job_facts import JobFacts
from hpcresume.policy.lead import Lead

START, END = 1_000_000.0, 1_003_600.0
NEEDS = 3.25 * 20 + 2
"""Seconds: one save of 20 s was measured, so 3.25 times that, and 2 s to leave."""


def job(asked_at: float = END, **more: Any) -> JobFacts:
    return JobFacts(**{"state": "RUNNING", "start": START, "end": END, "asked_at": asked_at, **more})


def measured(tmp_path: Path, *saves: float, began: float | None = None) -> RunPaths:
    run = RunPaths(tmp_path / "run")
    paths = run.attempt(1)
    paths.root.mkdir(parents=True, exist_ok=True)
    lines = [{"t": 1.0, "event": "saved", "seconds": each, "read_back": "all"} for each in saves]
    lines += [{"t": 100.0 + began, "event": "fresh-start"}] if began is not None else []
    paths.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    paths.supervisor.write_text(json.dumps({"t": 100.0, "event": "started"}) + "\n")
    return run


def test_nobody_is_told_before_a_save_was_measured(tmp_path):
    assert EarlyWarning().look(measured(tmp_path), job(), END - 1) == Look()


def test_the_ranks_are_told_so_long_before_the_end_as_the_run_needs(tmp_path):
    clock, run = EarlyWarning(), measured(tmp_path, 20.0)
    early = clock.look(run, job(), END - NEEDS - 1)
    assert (early.warn, early.news, early.left) == (False, True, NEEDS + 1)
    assert early.lead == Lead(NEEDS, "a save takes up to 20.0 s, a step 0.0 s, leaving 2.0 s")
    on_time = clock.look(run, job(), END - NEEDS)
    assert (on_time.warn, on_time.news) == (True, False), "the lead is told once"


def test_what_is_measured_on_the_way_counts(tmp_path):
    clock, run = EarlyWarning(), measured(tmp_path)
    assert clock.look(run, job(), END - 900).lead is None
    measured(tmp_path, 20.0)
    assert clock.look(run, job(), END - 890).lead is None, "files are not read at every turn"
    assert clock.look(run, job(), END - 869).lead is not None
    measured(tmp_path, 90.0)
    assert clock.look(run, job(), END - 290).warn, "3.25 times 90 s and 2 s: the need has grown meanwhile"


def test_near_the_end_it_looks_more_often(tmp_path):
    clock, run = EarlyWarning(), measured(tmp_path, 20.0)
    assert not clock.look(run, job(), END - 150).warn
    measured(tmp_path, 45.0)
    assert clock.look(run, job(), END - 146).warn


def test_an_old_word_on_the_end_is_asked_for_again_and_believed_when_nobody_answers(tmp_path):
    clock, run = EarlyWarning(), measured(tmp_path, 20.0)
    old, due = job(asked_at=START), END - NEEDS
    assert not clock.look(run, old, due - 5.5).ask
    before = clock.look(run, old, due - 5)
    assert (before.ask, before.warn) == (True, False), "in time for the answer"
    assert not clock.look(run, old, due - 1).ask, "it is asked once"
    assert clock.look(run, old, due + 0.1).warn


def test_a_need_that_has_grown_waits_for_the_answer_but_not_for_long(tmp_path):
    clock, run = EarlyWarning(), measured(tmp_path, 20.0)
    old, late = job(asked_at=START), END - NEEDS + 20
    first = clock.look(run, old, late)
    assert (first.ask, first.warn) == (True, False)
    assert not clock.look(run, old, late + 4).warn
    assert clock.look(run, old, late + 5.1).warn


def test_a_limit_that_was_raised_meanwhile_warns_nobody(tmp_path):
    clock, run = EarlyWarning(), measured(tmp_path, 20.0)
    assert clock.look(run, job(asked_at=START), END - NEEDS - 5).ask
    longer = job(asked_at=END - NEEDS - 4, end=END + 3600)
    look = clock.look(run, longer, END - NEEDS + 1)
    assert (look.ask, look.warn, look.left) == (False, False, 3600 + NEEDS - 1)
    again = clock.look(run, longer, END + 3600 - NEEDS - 3)
    assert (again.ask, again.warn) == (True, False), "and before the new end it is asked once more"


@pytest.mark.parametrize("state", ["COMPLETING", "SUSPENDED", "PENDING"])
def test_a_job_that_does_not_run_is_told_nothing(tmp_path, state):
    assert EarlyWarning().look(measured(tmp_path, 20.0), job(state=state), END - 1) == Look()


def test_a_job_without_a_limit_is_told_nothing(tmp_path):
    assert EarlyWarning().look(measured(tmp_path, 20.0), job(end=None), END) == Look()


def test_a_person_may_choose_the_lead_or_have_none(tmp_path):
    run = measured(tmp_path, 20.0)
    assert EarlyWarning(300.0).look(run, job(), END - 300).warn
    assert not EarlyWarning(30.0).look(run, job(), END - NEEDS).warn
    assert EarlyWarning(0.0).look(run, job(), END - 1) == Look()


def test_an_allocation_that_the_set_up_has_eaten_up_is_too_short(tmp_path):
    run = measured(tmp_path, 20.0, began=30.0)
    assert too_short(run, job(), END - NEEDS - 30.0) is None
    short = too_short(run, job(), END - NEEDS - 29.0)
    assert short is not None
    assert (short.left, short.needed, short.setup) == (NEEDS + 29, NEEDS + 30, END - START - NEEDS - 29)
    assert str(short) == (
        "this allocation had 96 s left, after 3504 s of set-up, and to begin, to work a step and to save it "
        "takes 97 s: it may come to nothing"
    )
    assert too_short(measured(tmp_path), job(), END - 1) is None, "nothing is measured, nothing is claimed"


def test_our_own_warning_makes_slurm_s_end_the_deadline_and_the_time_limit_the_cause():
    evidence = Evidence(claimed=True, job=(job(),))
    assert deadline_facts(evidence) is None
    told = Evidence(claimed=True, job=(job(),), clock=SignalReceived(10, END - NEEDS))
    facts = deadline_facts(told)
    assert facts is not None
    assert json.loads(facts) == {"unix": END, "source": "scontrol", "cause": "walltime"}
    ending = name_cause(told)
    assert ending.cause is Cause.WALLTIME
    assert "warned by our own clock" in ending.evidence
