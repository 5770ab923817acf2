"""A failed save never kills a healthy training; too many of them stop it loudly; a warning gets the best it can."""

from __future__ import annotations

import errno
import json
import os
import time

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.checkpoint.save import DATA_FILE
from hpcresume.errors import FencedError, NoSpaceError, RunDirectoryError, SaveError
from hpcresume.io.files import Files, substituted
from hpcresume.session import engine
from tests.session.scripts import decision, events


class Failing(Files):
    """Fails when a data file is opened for writing, `times` times, with `number`."""

    def __init__(self, times, number=errno.EIO):
        self.left = times
        self.number = number
        self.fired = 0

    def open(self, path, flags, mode=0o600):
        if path.name == DATA_FILE and flags & (os.O_WRONLY | os.O_RDWR) and self.left > 0:
            self.left -= 1
            self.fired += 1
            raise OSError(self.number, os.strerror(self.number), str(path))
        return super().open(path, flags, mode)


class FullDisk(Files):
    """No file of the attempt can be written any more: ledger, metrics, progress."""

    fired = 0

    def append(self, fd, data):
        self.fired += 1
        raise OSError(errno.ENOSPC, "no space left")

    def pwrite(self, fd, data, offset):
        if len(data) == 8:
            self.fired += 1
            raise OSError(errno.ENOSPC, "no space left")
        return super().pwrite(fd, data, offset)


def train(run, total=10, *, during=lambda s, step: None, **options):
    weights = np.zeros(2)
    with hr.session(run, **{"every": "2 steps", "reaction": 0, "write_path": "posix", **options}) as s:
        s.track(weights=weights)
        for step in s.steps(total):
            weights += step
            during(s, step)
            s.log(w=weights[0])
    return weights


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(engine, "PAUSE", 0.001)


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, "SaveError"), (errno.ENOSPC, "NoSpaceError")])
def test_a_failed_save_is_reported_and_counted_and_the_training_goes_on(run, number, kind):
    faults = Failing(2, number)
    with substituted(faults):
        weights = train(run)
    assert faults.fired == 2
    failed = events(run, 1, "save-failed")
    assert [(f["step"], f["failures"], f["type"]) for f in failed] == [(2, 1, kind), (4, 2, kind)]
    assert [event["step"] for event in events(run, 1, "saved")] == [6, 8, 10]
    assert weights[0] == 45
    assert (run / "DONE").exists()


def test_past_the_budget_the_run_stops_loudly_and_is_held(run):
    faults = Failing(100, errno.ENOSPC)
    with substituted(faults), pytest.raises(NoSpaceError):
        train(run, 100, save_failures=3)
    assert faults.fired == 4
    told = decision(run, 1)
    assert (told["decision"], told["cause_hint"]) == ("hold", "storage")
    assert "4 saves in a row" in told["reason"]
    assert not (run / "DONE").exists()


def test_a_budget_of_nothing_stops_at_the_first_failure(run):
    with substituted(Failing(1)), pytest.raises(SaveError):
        train(run, save_failures=0)
    assert len(events(run, 1, "save-failed")) == 1


def test_a_good_save_forgives_the_failures_before_it(run):
    class EverySecond(Failing):
        def open(self, path, flags, mode=0o600):
            if path.name == DATA_FILE and flags & os.O_EXCL:
                self.left = 1 - getattr(self, "last", 0)
                self.last = self.left
            return super().open(path, flags, mode)

    faults = EverySecond(0)
    with substituted(faults):
        train(run, 20, save_failures=1)
    assert faults.fired >= 4
    assert (run / "DONE").exists()


def test_between_saves_by_time_a_failed_one_is_tried_again_soon(run, monkeypatch):
    from hpcresume.policy import cadence

    monkeypatch.setattr(cadence, "RETRY_FIRST", 0.02)
    faults = Failing(2)
    with substituted(faults):
        train(run, 40, every="50ms", during=lambda s, step: time.sleep(0.01))
    assert faults.fired == 2
    begins = [event["mono"] for event in events(run, 1, "save-begin")]
    assert 0.01 < begins[1] - begins[0] < 0.05


@pytest.mark.parametrize("failures", [1, 2])
def test_a_save_for_a_warning_is_tried_again_at_once(run, warn, failures):
    faults = Failing(failures)
    with substituted(faults), pytest.raises(hr.Stopped) as stopped:
        train(run, every="1000 steps", during=lambda s, step: warn(s) if step == 4 else None)
    assert faults.fired == failures
    assert stopped.value.generation == "g000000000005-a0001"


def test_when_no_save_for_a_warning_succeeds_the_last_generation_is_kept_and_said_so(run, warn):
    faults = Failing(0)

    def during(s, step):
        if step == 4:
            faults.left = 3
            warn(s)

    with substituted(faults), pytest.raises(hr.Stopped) as stopped:
        train(run, during=during)
    assert faults.fired == 3
    assert stopped.value.generation == "g000000000004-a0001"
    told = decision(run, 1)
    assert (told["decision"], told["step"], told["generation"]) == ("come-back", 4, "g000000000004-a0001")
    assert "failed" in told["reason"]
    assert train(run)[0] == 45


def test_the_final_save_is_tried_again_since_there_is_nothing_to_go_on_with(run):
    faults = Failing(2)
    with substituted(faults):
        train(run, every="1000 steps")
    assert faults.fired == 2
    assert (run / "DONE").exists()


def test_a_full_disk_under_ledger_metrics_and_progress_ends_nothing(run):
    faults = FullDisk()
    weights = np.zeros(1)
    with hr.session(run, every="1000 steps") as s:
        s.track(w=weights)
        for step in s.steps(10):
            weights += 1
            if step == 2:
                with substituted(faults):
                    s.log(w=1.0)
                    s.log(w=2.0)
                    s._engine._progress.write(3)
                s.log(w=3.0)
    assert faults.fired == 3
    assert (run / "DONE").exists()
    lines = (run / "attempts/0001/metrics.jsonl").read_text().split("\n")
    assert [json.loads(x)["values"] for x in lines if x] == [{"w": 3.0}]


def test_an_attempt_that_a_newer_one_has_overtaken_commits_nothing_and_leaves_the_run_to_it(run):
    def overtake(s, step):
        if step == 1:
            (run / "attempts/0002").mkdir()

    with pytest.raises(FencedError):
        train(run, during=overtake)
    assert decision(run, 1)["decision"] == "come-back", "holding the job would hold the newer attempt's"
    assert os.listdir(run / "generations") == []


def test_done_that_cannot_be_written_is_an_error_and_the_run_is_not_called_finished(run):
    class NoDone(Files):
        fired = 0

        def rename(self, source, target):
            if target.name == "DONE":
                self.fired += 1
                raise OSError(errno.ENOSPC, "no space left", str(target))
            super().rename(source, target)

    faults = NoDone()
    with substituted(faults), pytest.raises(NoSpaceError):
        train(run)
    assert faults.fired == 1
    assert decision(run, 1)["decision"] == "hold"
    assert not (run / "DONE").exists()
    assert train(run)[0] == 45
    assert (run / "DONE").exists()


@pytest.mark.parametrize("path", ["/proc/nowhere/run", "/sys/kernel/run"])
def test_a_directory_that_cannot_be_made_is_one_clear_error(path):
    with pytest.raises(RunDirectoryError) as caught, hr.session(path):
        pytest.fail("opened")
    assert caught.value.hint


def deadline(run, seconds):
    path = run / "attempts/0001/deadline.json"
    path.write_text(json.dumps({"unix": time.time() + seconds, "source": "test", "cause": "preempted"}))


@pytest.mark.parametrize(("seconds", "read_back", "step"), [(1000, "all", 5), (1.0, "none", 5), (-5.0, None, 4)])
def test_the_time_left_decides_how_much_is_saved(run, warn, seconds, read_back, step):
    def during(s, which):
        if which == 4:
            s._engine._saver.seconds = 2.0 if seconds != 1.0 else None
            deadline(run, seconds)
            warn(s)

    with pytest.raises(hr.Stopped) as stopped:
        train(run, during=during)
    assert stopped.value.step == 5
    told = decision(run, 1)
    assert (told["step"], told["cause_hint"]) == (step, "preempted")
    newest = hr.Generations(run).newest()
    assert newest.step == step
    if read_back is not None:
        assert newest.read_back == read_back
    assert train(run)[0] == 45


@pytest.mark.parametrize(("left", "cause"), [(60, "walltime"), (7200, "preempted")])
def test_without_a_supervisor_the_time_limit_in_the_environment_tells_the_cause(run, warn, monkeypatch, left, cause):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + left)))
    with pytest.raises(hr.Stopped):
        train(run, during=lambda s, step: warn(s))
    assert decision(run, 1)["cause_hint"] == cause
