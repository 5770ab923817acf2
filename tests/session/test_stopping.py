"""How a session ends: finished, stopped, left, failed. What is on disk afterwards, and who goes on."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.errors import ConfigError, SessionOpenError, UsageError
from hpcresume.model import EXIT_COME_BACK
from tests.session.scripts import decision, events


def train(run, total=10, *, during=lambda s, step: None, after=lambda s: None, **options):
    """Counts steps in an array; returns the session and the array."""
    weights = np.zeros(2)
    with hr.session(run, **{"every": "1000 steps", "reaction": 0, **options}) as s:
        s.track(weights=weights)
        for step in s.steps(total):
            weights += step
            during(s, step)
        after(s)
    return s, weights


def at(when, action):
    """`during` that acts in one step."""
    return lambda s, step: action(s) if step == when else None


def generations(run):
    return sorted(os.listdir(run / "generations"))


def test_a_finished_run_has_its_final_state_and_done_and_goes_on_after_the_block(run):
    s, weights = train(run)
    assert (weights[0], s.step) == (45, 10)
    assert generations(run) == ["g000000000010-a0001"]
    assert (run / "DONE").exists()
    assert decision(run, 1)["decision"] == "done"


def test_a_warning_raises_out_of_the_loop_after_a_commit_and_the_next_attempt_goes_on(run, warn):
    reached = []
    with pytest.raises(hr.Stopped) as stopped:
        train(run, during=at(3, warn), after=reached.append)
    assert stopped.value.code == EXIT_COME_BACK
    assert (stopped.value.step, stopped.value.generation) == (4, "g000000000004-a0001")
    assert reached == []
    assert not (run / "DONE").exists()
    assert decision(run, 1)["generation"] == "g000000000004-a0001"
    steps = []
    s, weights = train(run, during=lambda s, step: steps.append(step))
    assert (s.attempt, s.generation, steps) == (2, "g000000000004-a0001", [4, 5, 6, 7, 8, 9])
    assert weights[0] == 45


def test_except_exception_does_not_catch_a_stop(run, warn):
    with pytest.raises(hr.Stopped):
        weights = np.zeros(1)
        with hr.session(run, reaction=0) as s:
            s.track(w=weights)
            try:
                for _ in s.steps(10):
                    warn(s)
            except Exception:
                pytest.fail("caught")


def test_a_stop_that_user_code_catches_still_stops_at_the_end_of_the_block(run, warn):
    went_on = []
    with pytest.raises(hr.Stopped):
        with hr.session(run, reaction=0) as s:
            s["x"] = 1
            steps = s.steps(10)
            try:
                for _ in steps:
                    warn(s)
            except BaseException as error:
                went_on.append(type(error))
            with pytest.raises(hr.Stopped):
                next(steps)
        went_on.append("after the block")
    assert went_on == [hr.Stopped]
    assert not (run / "DONE").exists()


def test_a_finished_run_never_runs_again_until_it_is_reopened(run, capsys):
    train(run)
    with pytest.raises(hr.RunFinished) as finished:
        train(run, during=at(0, lambda s: pytest.fail("it ran")))
    assert finished.value.code == 0
    assert capsys.readouterr().err.count("is finished") == 1
    assert len(os.listdir(run / "attempts")) == 1
    steps = []
    _, weights = train(run, 12, reopen=True, during=lambda s, step: steps.append(step))
    assert steps == [10, 11]
    assert weights[0] == 66
    assert (run / "DONE").exists()


def test_a_finished_run_tells_the_supervisor_that_it_is_done(run, tmp_path, monkeypatch):
    train(run)
    monkeypatch.setenv("HPCRESUME_LAUNCH_DIR", str(tmp_path))
    with pytest.raises(hr.RunFinished):
        train(run)
    assert '"decision": "done"' in (tmp_path / "decision.json").read_text()


def test_break_without_finish_saves_and_comes_back(run):
    with pytest.raises(hr.Stopped) as stopped:
        with hr.session(run) as s:
            w = np.zeros(1)
            s.track(w=w)
            for step in s.steps(10):
                w += 1
                if step == 4:
                    break
        pytest.fail("code after the block was reached")
    assert stopped.value.step == 5
    assert generations(run) == ["g000000000005-a0001"]
    assert decision(run, 1)["decision"] == "come-back"
    _, w = train_ones(run)
    assert w[0] == 10


def train_ones(run):
    w = np.zeros(1)
    with hr.session(run) as s:
        s.track(w=w)
        for _ in s.steps(10):
            w += 1
    return s, w


@pytest.mark.parametrize("leave", [True, False], ids=["finish and break", "finish"])
def test_finish_ends_the_run_with_this_very_step(run, leave):
    with hr.session(run, reaction=60) as s:
        s["x"] = 0
        for step in s.steps(1000):
            if step == 7:
                s.finish()
                if leave:
                    break
    assert s.step == 8
    assert generations(run) == ["g000000000008-a0001"]
    assert (run / "DONE").exists()


def test_an_exception_neither_saves_nor_finishes_and_is_recorded(run):
    def fail(_):
        raise ValueError("a bug of the user's")

    with pytest.raises(ValueError, match="a bug"):
        train(run, during=at(3, fail))
    assert generations(run) == []
    assert not (run / "DONE").exists()
    assert decision(run, 1) is None
    (event,) = events(run, 1, "exception")
    assert (event["type"], event["rank"], event["step"]) == ("ValueError", 0, 3)
    assert event["message"] == "a bug of the user's"


def test_an_exception_after_the_loop_leaves_no_done_and_the_next_attempt_only_finishes(run):
    def fail(_):
        raise OSError("the last line of the block")

    with pytest.raises(OSError, match="last line"):
        train(run, after=fail)
    assert not (run / "DONE").exists()
    train(run, during=at(0, lambda s: pytest.fail("no step is left")))
    assert (run / "DONE").exists()
    assert generations(run) == ["g000000000010-a0001"]


def test_sys_exit_in_user_code_is_an_exception_not_a_stop(run):
    with pytest.raises(SystemExit) as caught:
        train(run, during=at(2, lambda s: sys.exit(0)))
    assert not isinstance(caught.value, hr.Stopped)
    assert "sys.exit" in events(run, 1, "exception")[0]["message"]
    assert generations(run) == []


def test_ctrl_c_is_pythons_own(run):
    with pytest.raises(KeyboardInterrupt):
        train(run, during=at(2, lambda s: signal.raise_signal(signal.SIGINT)))
    assert events(run, 1, "exception")[0]["type"] == "KeyboardInterrupt"


def test_a_block_without_a_loop_is_held_and_the_code_after_it_does_not_run(run):
    with pytest.raises(UsageError, match="before the loop"), hr.session(run):
        pass
    assert decision(run, 1)["decision"] == "hold"
    assert decision(run, 1)["exit_code"] == 64
    assert not (run / "DONE").exists()


def test_a_warning_in_the_last_step_finishes_the_run(run, warn):
    _, weights = train(run, during=at(9, warn))
    assert weights[0] == 45
    assert (run / "DONE").exists()


def test_many_warnings_are_one_save_and_one_stop(run, warn):
    def many(s):
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP) * 50:
            warn(s, number)

    with pytest.raises(hr.Stopped):
        train(run, during=at(3, many))
    assert len(events(run, 1, "saved")) == len(events(run, 1, "warning")) == len(events(run, 1, "stop")) == 1


def test_a_step_already_saved_by_its_rhythm_is_not_saved_again_for_a_warning(run, warn):
    with pytest.raises(hr.Stopped):
        train(run, every="4 steps", during=at(3, warn))
    assert generations(run) == ["g000000000004-a0001"]
    assert len(events(run, 1, "save-begin")) == 1


def test_the_rhythm_in_steps_saves_after_each_multiple_and_keeps_the_newest(run):
    train(run, 20, every="6 steps", keep=2, reaction=60)
    assert [event["step"] for event in events(run, 1, "saved")] == [6, 12, 18, 20]
    assert generations(run) == ["g000000000018-a0001", "g000000000020-a0001"]


def test_two_sessions_at_once_in_a_process_are_refused(run, tmp_path):
    with hr.session(run) as s:
        with pytest.raises(SessionOpenError) as caught, hr.session(tmp_path / "other"):
            pytest.fail("opened")
        assert str(run) in caught.value.where
        for _ in s.steps(1):
            pass
    with hr.session(tmp_path / "other") as s:
        for _ in s.steps(1):
            pass


def test_a_session_opens_once(run):
    with hr.session(run) as s:
        for _ in s.steps(1):
            pass
    with pytest.raises(UsageError, match="twice"):
        s.__enter__()


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.track(x=1), lambda s: s.batches([1], 1), lambda s: s.steps(5), lambda s: s.poll(),
        lambda s: s.finish(), lambda s: s.log(x=1), lambda s: s["x"], lambda s: s.__setitem__("x", 1),
        lambda s: s.rank, lambda s: s.attempt,
    ],
)  # fmt: skip
def test_nothing_works_before_the_block_is_entered(run, call):
    with pytest.raises(UsageError):
        call(hr.session(run))
    assert not run.exists()


@pytest.mark.parametrize(
    "call", [lambda s: s.finish(), lambda s: s.log(x=1), lambda s: s["x"]], ids=["finish", "log", "value"]
)
def test_what_needs_a_step_is_refused_before_the_loop(run, call):
    with (
        pytest.raises(UsageError, match=r"inside the loop|step to belong to|when the loop begins"),
        hr.session(run) as s,
    ):
        s["x"] = 1
        call(s)


def test_who_we_were_and_what_was_tracked_can_be_asked_after_the_block(run):
    with hr.session(run) as s:
        for step in s.steps(2):
            s["last"] = step
    assert (s.rank, s.size, s.attempt, s.step, s["last"], s.run) == (0, 1, 1, 2, 1, run)


def test_one_loop_a_session(run):
    with hr.session(run) as s:
        for _ in s.steps(2):
            with pytest.raises(UsageError):
                s.steps(2)


@pytest.mark.parametrize("total", [0, -1, 1.0, True, "10", None])
def test_a_number_of_steps_that_is_none_is_refused(run, total):
    with pytest.raises(ConfigError), hr.session(run) as s:
        s.steps(total)


def test_fewer_steps_than_are_done_already_is_refused(run, warn):
    with pytest.raises(hr.Stopped):
        train(run, during=at(7, warn))
    with pytest.raises(ConfigError) as caught:
        train(run, 5)
    assert "8 finished steps" in caught.value.what
    assert decision(run, 2)["decision"] == "hold"


def test_progress_holds_the_finished_steps_while_the_run_goes_on(run):
    seen = []
    path = run / "attempts" / "0001" / "progress"
    train(run, 5, during=lambda s, step: seen.append(int.from_bytes(path.read_bytes() or b"\0", "little")))
    assert seen == [0, 1, 2, 3, 4]
    assert int.from_bytes(path.read_bytes(), "little") == 5


def test_metrics_are_exact_and_numbered_by_the_step_that_they_finish(run):
    import json

    def log(s, step):
        s.log(loss=0.1 + step, whole=2**60, array=np.float32(0.1), bad=float("nan"), worse=np.float64("-inf"))

    train(run, 3, during=log, after=lambda s: s.log(final=1))
    lines = [json.loads(x) for x in (run / "attempts/0001/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[1]["values"] == {
        "loss": 1.1, "whole": 2**60, "array": float(np.float32(0.1)), "bad": "nan", "worse": "-inf",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["text", None, [1], np.zeros(2), True, 1j, object()])
def test_what_is_no_number_cannot_be_logged(run, value):
    with pytest.raises(hr.errors.UntrackableError) as caught:
        train(run, during=lambda s, step: s.log(loss=value))
    assert caught.value.where == "log loss"
