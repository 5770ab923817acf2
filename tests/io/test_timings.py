"""What a run has measured and been through, read back from its ledgers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpcresume.io import timings
from hpcresume.io.paths import RunPaths
from hpcresume.io.timings import read_exposure, read_timings
from hpcresume.policy.failures import Exposure
from hpcresume.policy.lead import Timings

HOUR = 3600.0


def write(run: RunPaths, number: int, session: list[dict[str, Any]], supervisor: list[dict[str, Any]] = ()) -> None:
    paths = run.attempt(number)
    paths.root.mkdir(parents=True)
    for path, events in ((paths.ledger, session), (paths.supervisor, supervisor)):
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        last = max((event["t"] for event in events), default=0.0)
        os.utime(path, (last, last))


def saved(t: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {"t": t, "event": "saved", "seconds": seconds, "read_back": "all", **more}


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def test_saves_steps_leaving_and_beginning_are_those_of_the_newest_attempts(run):
    write(run, 1, [{"t": 100.0, "event": "fresh-start"}, saved(200.0, 9.0, longest_step=3.0)],
          [{"t": 60.0, "event": "started"}])  # fmt: skip
    write(run, 2, [{"t": 330.0, "event": "restored"}, saved(400.0, 8.0, longest_step=None), saved(500.0, 7.0),
                   saved(501.0, 0.5, read_back="none"), {"t": 502.0, "event": "stop", "step": 5, "generation": None}],
          [{"t": 300.0, "event": "started"}, {"t": 506.0, "event": "child-exit"}])  # fmt: skip
    assert read_timings(run) == Timings((9.0, 8.0, 7.0), longest_step=3.0, leaving=4.0, begin=40.0)


def test_only_the_newest_attempts_and_saves_count(run):
    for number in range(1, 9):
        write(run, number, [saved(10.0 * number + i, number + i / 100) for i in range(6)])
    found = read_timings(run).saves
    assert len(found) == timings.SAVES
    assert found[-1] == 8.05
    assert found == tuple(sorted(found))
    assert min(found) >= 9 - timings.ATTEMPTS


def test_a_long_ledger_is_read_at_its_ends_only(run):
    many = [saved(200.0 + i, 2.0) for i in range(5000)]
    write(run, 1, [{"t": 100.0, "event": "fresh-start"}, saved(150.0, 99.0), *many],
          [{"t": 60.0, "event": "started"}])  # fmt: skip
    assert run.attempt(1).ledger.stat().st_size > timings.HEAD + timings.TAIL
    assert read_timings(run) == Timings((2.0,) * timings.SAVES, begin=40.0)


@pytest.mark.parametrize(
    "text", ["", "\0\xff", '{"event": "saved"}', '{"event": "saved", "seconds": "long", "t": 1}', '["saved"]',
             '{"event": ["saved"]}', '{"event": "saved", "seconds": -1, "t": 1}', "[" * 5000 + '"saved"',
             '{"event": "saved", "seconds": true}', '{"event": "saved", "seconds": 1e999}', '{"event": "saved", "sec'],
)  # fmt: skip
def test_what_cannot_be_read_is_not_measured(run, text):
    run.attempt(1).root.mkdir(parents=True)
    run.attempt(1).ledger.write_text(text + "\n")
    run.attempt(1).supervisor.write_text(text)
    assert read_timings(run) == Timings()
    assert read_exposure(run, 2) == Exposure()


def test_a_run_that_does_not_exist_has_measured_nothing(tmp_path):
    assert read_timings(RunPaths(tmp_path / "none")) == Timings()
    assert read_exposure(RunPaths(tmp_path / "none"), 7) == Exposure()


def work(hours: float, *last: dict[str, Any]) -> list[dict[str, Any]]:
    end = 1000.0 + hours * HOUR
    return [{"t": 1000.0, "event": "restored"}, {"t": end, "event": "claimed"}, *({"t": end, **each} for each in last)]


SAVED_STOP = {"event": "stop", "step": 40, "generation": "g000000000040-a0001"}
LATE_STOP = {"event": "stop", "step": 41, "generation": "g000000000040-a0001"}


@pytest.mark.parametrize(
    ("session", "supervisor", "failures"),
    [
        (work(2), [], 1),
        (work(2, SAVED_STOP), [], 0),
        (work(2, LATE_STOP), [], 1),
        (work(2, {"event": "finished"}), [], 0),
        (work(2, {"event": "exception"}), [{"t": 1.0, "event": "ended", "cause": "crash"}], 1),
        (work(2), [{"t": 1.0, "event": "ended", "cause": "operator"}], 0),
    ],
    ids=["vanished", "stopped and saved", "stopped too late", "finished", "crashed", "ended by a person"],
)
def test_an_end_counts_where_it_cost_work_that_nobody_chose_to_lose(run, session, supervisor, failures):
    write(run, 1, session, supervisor)
    found = read_exposure(run, 2)
    assert found == Exposure(failures, pytest.approx(2 * HOUR, abs=1))


def test_all_attempts_before_this_one_add_up_and_one_that_never_began_counts_for_nothing(run):
    write(run, 1, work(2))
    write(run, 2, [{"t": 5.0, "event": "claimed"}])
    write(run, 3, work(3, SAVED_STOP))
    write(run, 4, work(9))
    assert read_exposure(run, 4) == Exposure(1, pytest.approx(5 * HOUR, abs=1))
