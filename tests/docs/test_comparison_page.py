"""docs/COMPARISON.md holds what the runner measured, and the runner counts right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers import page, records
from benchmarks.peers.cases import CASES
from benchmarks.peers.contenders import CONTENDERS, Terms
from benchmarks.peers.witness import Lives, read_lives

CELLS = [
    (contender, case) for case in CASES for contender in CONTENDERS if not case.only or contender.name in case.only
]
FACTS = {"finished": True, "deeds": [], "states": ["COMPLETED"], "hung": False, "attempts": 2, "lost": 0, "often": 0,
         "seldom": 0, "digests": ["a"], "intact": True, "away": 10.0, "seconds": 30.0}  # fmt: skip


# ---- the page is the record


def test_the_tables_are_those_that_the_record_gives():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, records.read()) == text, "run: python -m benchmarks.peers --page"


def test_every_cell_was_measured():
    kept = records.read()
    empty = [(each.name, case.name) for each, case in CELLS if not kept.get(each.name, {}).get(case.name)]
    assert empty == [], "run: make compare"


def test_no_cell_was_measured_with_more_than_its_case_asks_or_for_a_case_that_it_has_not():
    asked = {(contender.name, case.name): case.repeats for contender, case in CELLS}
    for contender, cases in records.read().items():
        for case, repeats in cases.items():
            assert 0 < len(repeats) <= asked[contender, case], (contender, case)


def test_each_measurement_has_its_versions_and_date():
    for contender, cases in records.read().items():
        versions = {json.dumps(each["versions"], sort_keys=True) for repeats in cases.values() for each in repeats}
        assert len(versions) == 1, f"the cells of {contender} were measured with different versions"
        assert "missing" not in versions.pop()
        for case, repeats in cases.items():
            for each in repeats:
                assert each["date"] >= "2026", (contender, case)


def test_contenders_with_the_same_training_end_with_the_same_bits_undisturbed():
    """Three of the programs share their loader: that their undisturbed ends are one says that they train the same."""
    kept = records.read()
    ends = {name: kept[name]["undisturbed"][0]["digests"] for name in ("submitit", "lightning", "by-hand")}
    assert len({tuple(end) for end in ends.values()}) == 1, ends


def test_the_page_explains_each_contender():
    text = page.PAGE.read_text(encoding="utf-8")
    assert [each.title for each in CONTENDERS if f"**{each.title}" not in text and f"**{each.name}" not in text] == [
        "hr.Resumable, with submitit"  # which is named together with the other
    ]


# ---- what a cell says


def record(**changes: object) -> records.Records:
    base = {"versions": {"slurm": "22.05.8"}, "date": "2026-01-01"}
    return {"by-hand": {"undisturbed": [{**FACTS, **base}], "preempted": [{**FACTS, **base, **changes}]}}


def said(**changes: object) -> str:
    by_hand = next(each for each in CONTENDERS if each.name == "by-hand")
    return page.outcome(record(**changes), by_hand, next(each for each in CASES if each.name == "preempted"))


def test_a_cell_names_the_way_back_the_steps_and_the_bits():
    assert said() == "back; 0 steps again; same bits"
    assert said(lost=1, digests=["b"]) == "back; 1 step again; other bits"
    assert said(digests=["a", "b"]).endswith("other bits")
    assert said(deeds=["sbatch again"], states=["FAILED", "COMPLETED"], lost=13).startswith(
        "**FAILED → sbatch again**; 13"
    )
    assert said(finished=False).startswith("**never finished**")


def test_repeats_are_counted():
    contender = next(each for each in CONTENDERS if each.name == "by-hand")
    case = next(each for each in CASES if each.name == "preempted")
    kept = record()
    other = {**kept["by-hand"]["preempted"][0], "deeds": ["sbatch again"], "states": ["FAILED", "COMPLETED"], "lost": 9}
    kept["by-hand"]["preempted"].append({**other, "digests": ["b"]})
    assert page.outcome(kept, contender, case) == (
        "back 1 of 2, else **FAILED → sbatch again**; 0 to 9 steps again; same bits 1 of 2"
    )


def test_a_flipped_bit_in_the_final_weights_is_said():
    case = next(each for each in CASES if each.name == "flipped-bit")
    assert page.damage([{**FACTS, "intact": False}], case).startswith("**not noticed")
    assert page.damage([FACTS], case) == "noticed"


# ---- what the witness counts


def lives(*steps: tuple[int, list[int]]) -> Lives:
    lines = [{"at": float(n), "event": "began"} if step < 0 else {"at": float(n), "step": step, "ids": ids}
             for n, (step, ids) in enumerate(steps)]  # fmt: skip
    return Lives({0: lines})


def test_steps_computed_again_are_lost_ones():
    seen = lives((-1, []), (0, [0]), (1, [1]), (2, [2]), (-1, []), (1, [1]), (2, [2]), (3, [3]))
    assert (seen.lost, seen.attempts, seen.last_step) == (2, 2, 3)
    assert seen.samples(batch=1) == (0, 0)
    assert seen.first_step_after(3.5) == pytest.approx(1.5)


def test_a_batch_that_was_dropped_came_too_seldom_and_what_came_instead_too_often():
    """Saved in the midst of step 1: its batch counts as given out, so the next attempt's step 1 has the next batch."""
    seen = lives((-1, []), (0, [0]), (-1, []), (1, [2]), (2, [3]), (3, [0]), (4, [1]), (5, [2]), (6, [3]), (7, [0]))
    assert seen.lost == 0
    assert seen.samples(batch=1) == (1, 1)


def test_a_step_that_was_killed_before_it_could_write_is_not_missed():
    seen = lives((-1, []), (0, [0]), (-1, []), (2, [2]), (3, [3]), (4, [0]), (5, [1]), (6, [2]), (7, [3]))
    assert seen.samples(batch=1) == (0, 0)


def test_a_save_shows_in_the_step_after_it():
    at, lines = 0.0, [{"at": 0.0, "event": "began", "started": -3.0}]
    for step in range(12):
        at += 5.0 if step and step % 4 == 0 else 1.0
        lines.append({"at": at, "step": step, "ids": []})
    seen = Lives({0: lines})
    assert (seen.held_up(4), seen.first_step) == (4.0, 4.0)


def test_a_new_attempt_has_no_step_yet():
    assert lives((-1, []), (0, [0]), (-1, [])).last_step == -1


def test_a_line_that_is_being_written_does_not_count(tmp_path: Path):
    (tmp_path / "rank-0.jsonl").write_text('{"at": 1, "step": 0, "ids": []}\n{"at": 2, "st')
    assert read_lives(tmp_path).count == 1


# ---- what is measured again


def test_a_cell_is_measured_again_when_a_version_changed_and_only_then():
    case = next(each for each in CASES if each.name == "preempted")
    versions = {"slurm": "22", "torch": "2", "hpcresume": "1", "submitit": "1", "lightning": "2"}
    kept: records.Records = {}
    for _ in range(case.repeats):
        records.add(kept, "lightning", case.name, dict(FACTS), versions)
    assert records.missing(kept, "lightning", case, versions, again=False) == 0
    assert records.missing(kept, "lightning", case, {**versions, "submitit": "9"}, again=False) == 0
    assert records.missing(kept, "lightning", case, {**versions, "lightning": "9"}, again=False) == case.repeats
    assert records.missing(kept, "lightning", case, versions, again=True) == case.repeats


# ---- the training


def test_each_program_is_submitted_with_the_signal_of_its_page():
    forms = {each.name: (each.form(Terms()), each.form(Terms(other_form=True))) for each in CONTENDERS}
    assert forms["lightning"] == ("USR1@60", "B:USR1@60")
    assert forms["by-hand"] == forms["launch"] == ("B:USR1@60", "USR1@60")


def test_the_loader_deals_every_sample_once_an_epoch_and_goes_on_where_it_was():
    program = (
        "from itertools import islice\n"
        "from benchmarks.peers.training import Batches, SAMPLES, endless\n"
        "whole = [[*islice(endless(Batches(rank)), 60)] for rank in (0, 1)]\n"
        "seen = sorted(i for rank in whole for batch in rank[24:48] for i in batch)\n"
        "assert seen == list(range(SAMPLES))\n"
        "first = Batches(0)\n"
        "stream = endless(first)\n"
        "head = [next(stream) for _ in range(33)]\n"
        "again = Batches(0)\n"
        "again.load_state_dict(first.state_dict())\n"
        "assert head + [*islice(endless(again), 27)] == whole[0]\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
