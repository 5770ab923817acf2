"""How long before the end a job is warned: as it says, or as its run has measured; and what the preflight says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpcresume.cli.launch import command
from hpcresume.config.job import read_job
from hpcresume.config.job_spec import JobSpec
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.maintenance import Maintenance
from hpcresume.submit.launch_words import time_words
from hpcresume.submit.lead import lead_checks, maintenance_checks, warning_lead
from hpcresume.submit.script import render
from hpcresume.submit.submitit_parameters import slurm_options, slurm_parameters


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job(lead: str = "auto", resources: str = "time: 4h", more: str = "command: x") -> JobSpec:
    return read_job(f"name: a\n{more}\nresources: {{{resources}}}\nrequeue: {{warning_lead: {lead}}}\n").spec


def measure(*saves: float, run: str = "runs/a", begin: float = 0.0) -> None:
    paths = RunPaths(Path(run)).attempt(1)
    paths.root.mkdir(parents=True)
    lines = [{"t": 100.0 + begin, "event": "fresh-start"}]
    lines += [{"t": 200.0, "event": "saved", "seconds": each, "read_back": "all"} for each in saves]
    paths.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    paths.supervisor.write_text(json.dumps({"t": 100.0, "event": "started"}) + "\n")


@pytest.mark.parametrize(
    ("lead", "resources", "seconds"),
    [("90s", "time: 4h", 90), ("auto", "time: 4h", 300), ("auto", "time: 10min", 150), ("auto", "", 300),
     ("auto", "time: 24h, time_min: 8min", 120), ("auto", "time: UNLIMITED", 300)],
)  # fmt: skip
def test_before_a_run_has_saved_it_is_what_the_job_says_or_five_minutes(lead, resources, seconds):
    assert warning_lead(job(lead, resources)) == seconds


def test_a_run_that_has_saved_is_warned_as_long_before_as_it_needs():
    measure(*[100.0] * 20)
    assert warning_lead(job()) == 137  # 1.35 × 100 + 2
    assert warning_lead(job("90s")) == 90, "who names a time gets it"
    assert warning_lead(job(resources="time: 24h, time_min: 8min")) == 120, "a quarter of the shortest start"


def test_the_measured_lead_stands_in_the_script_and_in_what_submitit_is_told():
    measure(*[100.0] * 20)
    assert "#SBATCH --signal=B:USR1@137" in render(job())
    function = job(more="function: train:main")
    assert {n: v for n, v, _ in slurm_options(function)}["signal"] == "B:USR1@137"
    assert {n: v for n, v, _ in slurm_parameters(function, ())}["signal_delay_s"] == 137


def test_an_array_goes_by_the_first_of_its_tasks_that_has_measured_anything():
    RunPaths(Path("runs/a-0")).attempt(1).root.mkdir(parents=True)
    measure(*[100.0] * 20, run="runs/a-1")
    assert warning_lead(job(resources="time: 4h, array: 0-3")) == 137
    assert warning_lead(job()) == 300, "a run that is no array is another run"


def test_the_preflight_says_where_the_lead_comes_from():
    (check,) = lead_checks(job())
    assert (check.outcome, check.detail) == ("ok", "5min before the end: this run has not measured a save yet")
    measure(*[100.0] * 20)
    (check,) = lead_checks(job())
    assert check.detail == "2min17s before the end: a save takes up to 100.0 s, a step 0.0 s, leaving 2.0 s"
    assert [*lead_checks(job("5min"))] == [], "it is long enough"


def test_the_preflight_notes_a_lead_that_is_too_short_and_a_time_min_that_comes_to_nothing():
    measure(*[100.0] * 20, begin=200.0)
    (check,) = lead_checks(job("60s"))
    assert (check.name, check.outcome) == ("warning", "noted")
    assert check.detail.startswith("the warning comes 1min before the end, and this run needs 137 s: a save takes")
    assert check.hint == "requeue.warning_lead: auto"
    (check,) = lead_checks(job("90s", "time: 24h, time_min: 5min"))
    assert (check.name, check.outcome) == ("time_min", "noted")
    assert check.detail == (
        "a start with no more than time_min would have 5min, and this run needs 337 s to begin, work a step and save it"
    )
    assert check.hint == "resources.time_min: 12min"
    assert [*lead_checks(job("3min", "time: 24h, time_min: 1h"))] == []


NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("resources", "start", "asked", "begins", "hint"),
    [
        ("time: 24h", NOW + 7200, 86400, "begins in 2h", "resources.time_min: 60min"),
        ("time: 24h, time_min: 3h", NOW + 7200, 10800, "begins in 2h", "resources.time_min: 60min"),
        ("time: 24h", NOW + 300, 86400, "begins in 5min", "wait"),
        ("time: 24h", NOW - 300, 86400, "is going on", "wait"),
        ("time: UNLIMITED", NOW + 7200, None, "begins in 2h", "resources.time_min: 60min"),
    ],
)
def test_a_maintenance_that_the_job_would_wait_for_is_said(resources, start, asked, begins, hint):
    def look(partition: str, nodes: int, seconds: float | None, now: float) -> Maintenance:
        assert (partition, nodes, seconds, now) == ("low", 1, asked, NOW)
        return Maintenance("spring", start, start + 3600, "n[1-4]")

    (check,) = maintenance_checks(job("1min", resources), "low", lambda: NOW, look)
    assert (check.name, check.outcome, check.hint) == ("maintenance", "noted", hint)
    assert check.detail.startswith(f"the maintenance spring {begins}: the job waits until it is over, 19")


def test_of_a_maintenance_that_is_in_nobody_s_way_nothing_is_said():
    assert [*maintenance_checks(job(), "low", lambda: NOW, lambda *_: None)] == []
    never = pytest.fail
    assert [*maintenance_checks(job(resources="time: 4h, reservation: spring"), "low", lambda: NOW, never)] == []
    assert [*maintenance_checks(job(resources=""), "low", lambda: NOW, never)] == []


def test_where_slurm_may_lower_the_limit_the_supervisor_is_told_what_it_was():
    spec = job("5min", "time: 36h, time_min: 2h")
    script = render(spec)
    assert "#SBATCH --time=1-12:00:00\n" in script
    assert "#SBATCH --time-min=02:00:00\n" in script
    assert "hpcresume launch --time-limit=1-12:00:00 " in script
    assert time_words(job()) == []
    words = [word for word, _ in time_words(spec)]
    done = CliRunner().invoke(command, [*words, "--mpi=direct", "--run=x", "--dry-run", "--", "true"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("option", "wrong"), [("--time-limit=24", "--time-limit"), ("--time-limit=soon", "--time-limit"),
                          ("--warn-before=5", "--warn-before"), ("--warn-before=now", "--warn-before")],
)  # fmt: skip
def test_a_time_that_is_none_is_refused_with_the_option(option, wrong):
    done = CliRunner().invoke(command, [option, "--mpi=direct", "--run=x", "--dry-run", "--", "true"])
    assert wrong in str(done.exception)


@pytest.mark.parametrize("value", ["auto", "off", "10min", "AUTO"])
def test_the_clock_may_be_set(value):
    done = CliRunner().invoke(command, [f"--warn-before={value}", "--mpi=direct", "--run=x", "--dry-run", "--", "true"])
    assert done.exit_code == 0, done.output
