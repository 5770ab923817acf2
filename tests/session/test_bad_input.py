"""Bad input, each with an error of its own that says what to do. Storage's own faults are in test_failed_saves."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.errors import (
    ConfigError,
    FormatVersionError,
    ModelChangedError,
    NoUsableGenerationError,
    RestoreMismatchError,
    RunBusyError,
    RunDirectoryError,
    TrackingClosedError,
    UntrackableError,
    UsageError,
)
from tests.session.scripts import decision, events
from tests.support.mpi import child_environment


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"every": "sometimes"}, "every"),
        ({"every": math.nan}, "every"),
        ({"every": "0 steps"}, "every"),
        ({"keep": 0}, "keep"),
        ({"keep": 1.5}, "keep"),
        ({"comm": "telepathy"}, "comm"),
        ({"write_path": "ftp"}, "write_path"),
        ({"read_back": "none"}, "read_back"),
        ({"watchdog": "soon"}, "watchdog"),
        ({"watchdog": math.inf}, "watchdog"),
        ({"reaction": -1}, "reaction"),
        ({"reaction": math.nan}, "reaction"),
        ({"save_failures": -1}, "save_failures"),
        ({"signals": ["KILL"]}, "signals"),
    ],
)
def test_each_bad_option_is_named_with_something_to_try_and_nothing_is_made(run, options, where):
    with pytest.raises(ConfigError) as caught, hr.session(run, **options):
        pytest.fail("opened")
    assert caught.value.where == where
    assert caught.value.hint
    assert not run.exists()


def test_a_write_path_that_cannot_work_is_found_before_training_and_not_at_the_first_save(run):
    with pytest.raises(ConfigError) as caught, hr.session(run, write_path="mpiio", comm="single") as s:
        for _ in s.steps(3):
            pytest.fail("a step ran")
    assert caught.value.where.endswith("write_path")
    assert decision(run, 1)["decision"] == "hold"


@pytest.mark.parametrize("path", ["", None, 5, b"bytes", "with\nnewline", "nul\0"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ConfigError) as caught:
        hr.session(path)
    assert caught.value.where == "run"


def test_a_run_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError), hr.session(tmp_path / "file"):
        pytest.fail("opened")


def test_a_run_of_another_format_version_is_refused(run):
    with hr.session(run) as s:
        for _ in s.steps(1):
            pass
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "format_version": 99}))
    with pytest.raises(FormatVersionError), hr.session(run):
        pytest.fail("opened")


HOLDER = """
import sys, time
import hpcresume as hr
with hr.session(sys.argv[1], reaction=0) as s:
    for step in s.steps(10**9):
        if step == 1:
            sys.stdout.write("running")
            sys.stdout.flush()
        time.sleep(0.001)
"""


def test_another_live_job_on_the_same_run_is_refused_until_it_is_gone(run):
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], env=child_environment(), stdout=subprocess.PIPE)
    try:
        assert other.stdout.read(7) == b"running"
        with pytest.raises(RunBusyError) as caught, hr.session(run):
            pytest.fail("opened")
        assert str(other.pid) in str(caught.value)
        assert os.listdir(run / "attempts") == ["0001"]
    finally:
        other.kill()
        other.communicate()
    with hr.session(run) as s:
        assert s.attempt == 2
        for _ in s.steps(1):
            pass


@pytest.mark.parametrize("age", [0, 1000])
def test_a_holder_on_another_machine_counts_as_alive_while_it_gives_signs_of_life(run, age):
    with hr.session(run) as s:
        for _ in s.steps(1):
            pass
    (run / "DONE").unlink()
    claim = run / "attempts/0001/claim.json"
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "host": "elsewhere"}))
    for path in (run / "attempts/0001").iterdir():
        stamp = path.stat().st_mtime - age
        os.utime(path, (stamp, stamp))
    if age == 0:
        with pytest.raises(RunBusyError), hr.session(run):
            pytest.fail("opened")
    else:
        with hr.session(run) as s:
            for _ in s.steps(1):
                pass


@pytest.mark.parametrize(
    "value", [object(), lambda: None, {1, 2}, np.array(["text"]), np.array([object()]), iter([]), range(3)]
)
def test_an_untrackable_object_is_named_before_training_begins(run, value):
    with pytest.raises(UntrackableError) as caught, hr.session(run) as s:
        s.track(good=1, thing=value)
        for _ in s.steps(3):
            pytest.fail("a step ran")
    assert "thing" in caught.value.where


def test_an_untrackable_leaf_deep_inside_is_named_with_its_path(run):
    with pytest.raises(UntrackableError) as caught, hr.session(run) as s:
        s.track(config={"layers": [{"size": 3}, {"size": {4}}]})
        for _ in s.steps(3):
            pytest.fail("a step ran")
    assert caught.value.where == "config['layers'][1]['size']"


def test_an_untrackable_value_is_refused_when_it_is_set(run):
    with hr.session(run) as s:
        with pytest.raises(UntrackableError) as caught:
            s["best"] = object()
        assert caught.value.where == "best"
        for _ in s.steps(1):
            pass


@pytest.mark.parametrize("call", [lambda s: s.track(late=1), lambda s: s.batches([1, 2], 1)], ids=["track", "batches"])
def test_tracking_after_the_loop_began_is_refused(run, call):
    with hr.session(run) as s:
        for _ in s.steps(1):
            with pytest.raises(TrackingClosedError):
                call(s)


@pytest.mark.parametrize("name", ["model", "best"])
def test_a_name_is_tracked_once(run, name):
    with hr.session(run) as s:
        s.track(model=np.zeros(1), best=0)
        with pytest.raises(UsageError) as caught:
            s.track(**{name: np.zeros(1)})
        assert caught.value.where == name
        for _ in s.steps(1):
            pass


def test_a_value_cannot_take_the_name_of_an_object(run):
    with hr.session(run) as s:
        s.track(model=np.zeros(1))
        with pytest.raises(UsageError):
            s["model"] = 1
        for _ in s.steps(1):
            with pytest.raises(UsageError, match="no value 'nothing'"):
                s["nothing"]


def saved_with(run, **objects):
    """A stopped run whose generation holds `objects`."""
    with pytest.raises(hr.Stopped), hr.session(run, every="1 step") as s:
        s.track(**objects)
        for _ in s.steps(10):
            break


def resumed_with(run, **objects):
    with hr.session(run) as s:
        s.track(**objects)
        for _ in s.steps(10):
            pass


def test_a_changed_model_is_refused_and_all_differences_are_named(run):
    torch = pytest.importorskip("torch")
    saved_with(run, model=torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)), w=np.zeros(3))
    changed = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 1, bias=False), torch.nn.Linear(1, 1))
    before = [parameter.detach().clone() for parameter in changed.parameters()]
    with pytest.raises(ModelChangedError) as caught:
        resumed_with(run, model=changed, w=np.zeros(4))
    text = str(caught.value)
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias", "w ("):
        assert name in text, name
    assert all(torch.equal(a, b) for a, b in zip(before, changed.parameters(), strict=True)), "nothing was loaded"
    assert decision(run, 2)["decision"] == "hold"
    assert events(run, 2, "exception")[0]["type"] == "ModelChangedError"


def test_of_very_many_differences_twenty_are_named_and_the_rest_counted(run):
    saved_with(run, **{f"a{i}": np.zeros(1) for i in range(50)})
    with pytest.raises(ModelChangedError) as caught:
        resumed_with(run, **{f"a{i}": np.zeros(2) for i in range(50)})
    assert "and 30 more" in str(caught.value)


@pytest.mark.parametrize(("now", "named"), [({"a": 1, "b": 2}, "'b' is tracked now"), ({}, "'a' is in the generation")])
def test_other_names_than_those_saved_are_refused(run, now, named):
    saved_with(run, a=np.zeros(1))
    with pytest.raises(ModelChangedError) as caught:
        resumed_with(run, **{name: np.zeros(1) for name in now})
    assert named in str(caught.value)


def test_an_object_that_takes_its_state_and_reports_another_one_is_found_out(run):
    class Rounding:
        def __init__(self):
            self.value = np.float64(1) / 3

        def state_dict(self):
            return {"inner": [{"value": np.array([self.value])}]}

        def load_state_dict(self, state):
            self.value = np.float64(np.float32(state["inner"][0]["value"][0]))

    saved_with(run, thing=Rounding())
    with pytest.raises(RestoreMismatchError) as caught:
        resumed_with(run, thing=Rounding())
    assert "thing['inner'][0]['value']" in caught.value.what


def test_an_optimizer_that_casts_its_moments_is_found_out(run):
    torch = pytest.importorskip("torch")

    def parts(dtype):
        model = torch.nn.Linear(2, 1)
        return model, torch.optim.Adam(model.to(dtype).parameters())

    model, optimizer = parts(torch.float64)
    with pytest.raises(hr.Stopped), hr.session(run) as s:
        s.track(optimizer=optimizer)
        for _ in s.steps(10):
            model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
            optimizer.step()
            break
    with pytest.raises(RestoreMismatchError) as caught:
        resumed_with(run, optimizer=parts(torch.float32)[1])
    assert "float64" in caught.value.what
    assert "float32" in caught.value.what


def test_a_load_state_dict_that_refuses_is_a_changed_model(run):
    class Picky:
        def state_dict(self):
            return {"size": 1}

        def load_state_dict(self, state):
            raise KeyError("momentum")

    saved_with(run, thing=Picky())
    with pytest.raises(ModelChangedError) as caught:
        resumed_with(run, thing=Picky())
    assert caught.value.where == "thing"
    assert "KeyError" in caught.value.what


def test_a_run_whose_every_generation_is_damaged_never_starts_from_zero(run):
    saved_with(run, a=np.zeros(100))
    (path,) = (run / "generations").iterdir()
    with open(path / "state.h5", "r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(b"damage")
    with pytest.raises(NoUsableGenerationError):
        resumed_with(run, a=np.zeros(100))
    assert decision(run, 2)["decision"] == "hold"
