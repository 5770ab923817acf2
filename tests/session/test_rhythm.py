"""What "auto" knows of the run in a session, what it chooses, and what it tells of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hpcresume as hr
from hpcresume.io.paths import RunPaths
from hpcresume.model import Event
from hpcresume.policy.cadence import Auto, EverySteps, daly_interval
from hpcresume.session.rhythm import Rhythm
from hpcresume.session.saver import Saver

HOUR = 3600.0


class Saves:
    """What a rhythm asks a saver."""

    def __init__(self, *recent: float) -> None:
        self.recent, self.tried_step, self.tried_at, self.failures = list(recent), 0, 0.0, 0


def rhythm(run: RunPaths, cadence: Any = None, attempt: int = 9) -> tuple[Rhythm, list[Event]]:
    told: list[Event] = []
    made = Rhythm(Auto() if cadence is None else cadence, told.append)
    made.begin(run, attempt, 0.0)
    return made, told


def attempt(run: RunPaths, number: int, hours: float, *more: dict[str, Any]) -> None:
    root = run.attempt(number).root
    root.mkdir(parents=True)
    now = time.time()
    events = [{"t": now - hours * HOUR, "event": "restored"}, {"t": now, "event": "claimed"}, *more]
    (root / "ledger.jsonl").write_text("".join(json.dumps({"t": now, **event}) + "\n" for event in events))


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def test_the_first_save_of_a_run_comes_after_a_minute_and_what_it_costs_decides(run):
    made, told = rhythm(run)
    assert not made.wants_save(5, Saves(), 59.0)
    assert made.wants_save(5, Saves(), 60.0)
    best = daly_interval(10.0, 6 * HOUR)
    assert not made.wants_save(5, Saves(10.0), best - 5)
    assert made.wants_save(5, Saves(10.0), best + 20), "a little more, since ten minutes have gone well meanwhile"
    assert [each.fields["seconds"] for each in told] == [60, pytest.approx(best, rel=0.02)]
    assert told[-1].name == "cadence"
    assert told[-1].fields["save_seconds"] == 10.0
    assert told[-1].fields["why"] == "this loses least time"


def test_one_slow_save_among_five_changes_nothing(run):
    made, told = rhythm(run)
    made.wants_save(5, Saves(10.0, 10.0, 10.0), 1.0)
    made.wants_save(5, Saves(10.0, 10.0, 10.0, 500.0), 2.0)
    assert len(told) == 1


def test_a_later_attempt_goes_by_the_saves_of_those_before_it(run):
    attempt(run, 1, 1.0, {"event": "saved", "seconds": 30.0, "read_back": "all"}, {"event": "finished"})
    made, told = rhythm(run, attempt=2)
    assert not made.wants_save(5, Saves(), 61.0)
    assert told[0].fields["save_seconds"] == 30.0


def test_attempts_that_lost_work_make_it_save_more_often_and_long_ones_that_lost_none_less(run):
    calm = {"event": "stop", "step": 40, "generation": "g000000000040-a0001"}
    for number in range(1, 7):
        attempt(run, number, 1.0)
    often, told = rhythm(run, attempt=7)
    often.wants_save(5, Saves(10.0), 1.0)
    assert (told[0].fields["failures"], round(told[0].fields["worked"] / HOUR)) == (6, 6)
    assert told[0].fields["seconds"] == pytest.approx(daly_interval(10.0, 18 * HOUR / 8), rel=0.01)
    for number in range(7, 13):
        attempt(run, number, 24.0, calm)
    seldom, told = rhythm(run, attempt=13)
    seldom.wants_save(5, Saves(10.0), 1.0)
    assert told[0].fields["seconds"] == pytest.approx(daly_interval(10.0, 162 * HOUR / 8), rel=0.01)


def test_an_attempt_that_lasts_saves_less_and_less_often_and_says_so_now_and_then(run):
    made, told = rhythm(run)
    for hours in range(100):
        made.wants_save(5, Saves(10.0), hours * HOUR)
    chosen = [each.fields["seconds"] for each in told]
    assert chosen == sorted(chosen)
    assert chosen[-1] > 2 * chosen[0]
    assert len(chosen) < 15


def test_a_rhythm_in_steps_asks_nobody_and_tells_nothing(run, monkeypatch):
    monkeypatch.setattr(sys.modules[Rhythm.__module__], "read_exposure", None)
    made, told = rhythm(run, EverySteps(10))
    assert made.wants_save(10, Saves(), 1.0)
    assert told == []


def test_a_session_tells_what_it_chose_and_how_long_its_steps_take(tmp_path):
    with hr.session(tmp_path / "run", every="auto, at most 50ms") as s:
        s["x"] = 0
        for step in s.steps(12):
            time.sleep(0.2 if step == 7 else 0.02)
    ledger = RunPaths(tmp_path / "run").attempt(1).ledger.read_text().splitlines()
    events = [json.loads(line) for line in ledger]
    (chosen,) = [each for each in events if each["event"] == "cadence"]
    assert (chosen["seconds"], chosen["why"]) == (0.05, "never longer than asked")
    saved = [each for each in events if each["event"] == "saved"]
    assert len(saved) >= 3
    longest = [each["longest_step"] for each in saved if each["longest_step"] is not None]
    assert max(longest) >= 0.2


def test_what_a_save_takes_is_no_part_of_the_step_after_it(tmp_path, monkeypatch):
    module = sys.modules[Saver.__module__]
    save = module.save_generation

    def slowly(*args: Any, **options: Any) -> Any:
        time.sleep(1.0)
        return save(*args, **options)

    monkeypatch.setattr(module, "save_generation", slowly)
    with hr.session(tmp_path / "run", every="2 steps", reaction=0) as s:
        s["x"] = 0
        for _ in s.steps(4):
            time.sleep(0.01)
    events = map(json.loads, RunPaths(tmp_path / "run").attempt(1).ledger.read_text().splitlines())
    assert [each["longest_step"] < 0.9 for each in events if each["event"] == "saved"] == [True, True]


def test_the_first_step_of_an_attempt_is_no_measure_of_a_step(tmp_path):
    with hr.session(tmp_path / "run", every="3 steps") as s:
        s["x"] = 0
        for step in s.steps(3):
            time.sleep(1.0 if step == 0 else 0.01)
    events = map(json.loads, RunPaths(tmp_path / "run").attempt(1).ledger.read_text().splitlines())
    assert [each["longest_step"] < 0.5 for each in events if each["event"] == "saved"] == [True]
