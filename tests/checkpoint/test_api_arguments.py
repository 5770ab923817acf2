"""What hr.save, hr.load, hr.read_tensor and hr.Generations refuse to be given, and that nothing comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.errors import ConfigError, HpcresumeError, NoGenerationError, NonFiniteError, RunDirectoryError
from hpcresume.testing.thread_ranks import run_ranks
from tests.checkpoint.states import same, small_state
from tests.support.users import unprivileged

ENTRIES: dict[str, Callable[[Any], Any]] = {
    "save": lambda run: hr.save(run, {}, step=1),
    "load": hr.load,
    "Generations": hr.Generations,
}


def check(error: HpcresumeError) -> None:
    """It says what, where and what to try."""
    assert error.what
    assert error.where
    assert error.hint


@pytest.mark.parametrize("given", [None, 5, b"x", "", 1.5, ["run"], True], ids=repr)
@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_no_path_is_refused_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, given: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        ENTRIES[entry](given)
    check(caught.value)
    assert caught.value.where == "run"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_path_with_a_nul_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirectoryError, match="NUL") as caught:
        ENTRIES[entry]("a\0b")
    check(caught.value)


@pytest.mark.parametrize("entry", ["save", "load"])
def test_a_wrong_path_on_one_rank_is_an_error_on_all(tmp_path: Path, entry: str) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    acts = {"save": lambda p, ranks: hr.save(p, {}, step=2, comm=ranks), "load": lambda p, r: hr.load(p, comm=r)}
    found = run_ranks(
        3, lambda ranks: acts[entry](None if ranks.rank == 1 else tmp_path / "run", ranks), timeout=20
    )  # fmt: skip
    assert {type(each) for each in found} == {ConfigError}
    assert "rank 1" in str(found[0])


def test_a_path_object_of_any_kind_will_do(tmp_path: Path) -> None:
    class Somewhere:
        def __fspath__(self) -> str:
            return str(tmp_path / "run")

    saved = hr.save(Somewhere(), small_state(1), step=1)  # type: ignore[arg-type]
    assert saved.path.parent.parent == tmp_path / "run"


def test_the_path_of_a_generation_loads_that_one(tmp_path: Path) -> None:
    for step in (1, 2):
        hr.save(tmp_path / "run", small_state(step), step=step)
    path = tmp_path / "run" / "generations" / "g000000000001-a0001"
    assert same(hr.load(path).state, small_state(1))
    assert hr.load(str(path) + "/").generation.step == 1


def test_the_path_of_a_generation_that_is_missing_says_so(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    with pytest.raises(NoGenerationError, match="no generation g000000000009-a0001") as caught:
        hr.load(tmp_path / "run" / "generations" / "g000000000009-a0001")
    check(caught.value)
    found = run_ranks(2, lambda r: hr.load(tmp_path / "run" / "generations" / "g000000000009-a0001", comm=r))
    assert {type(each) for each in found} == {NoGenerationError}


@pytest.mark.parametrize("given", ["path", None, 5, Path("x")], ids=repr)
def test_read_tensor_wants_a_generation(given: Any) -> None:
    with pytest.raises(ConfigError, match="is no Generation") as caught:
        hr.read_tensor(given, "a")
    check(caught.value)


@pytest.mark.parametrize("act", ["verify", "named"])
@pytest.mark.parametrize("given", [None, 5, b"g"], ids=repr)
def test_a_generation_is_asked_for_by_itself_or_by_name(tmp_path: Path, act: str, given: Any) -> None:
    hr.save(tmp_path / "run", small_state(1), step=1)
    with pytest.raises(ConfigError) as caught:
        getattr(hr.Generations(tmp_path / "run"), act)(given)
    check(caught.value)


@pytest.mark.parametrize("step", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_refused_as_that(tmp_path: Path, step: Any) -> None:
    with pytest.raises(NonFiniteError) as caught:
        hr.save(tmp_path / "run", {}, step=step)
    check(caught.value)
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_fine_in_a_state(tmp_path: Path) -> None:
    state = {"loss": math.nan, "best": -math.inf, "w": np.array([math.nan, math.inf])}
    hr.save(tmp_path / "run", state, step=1)
    assert same(hr.load(tmp_path / "run").state, state)


def test_a_claim_that_the_system_refuses_says_where_and_what_to_try(tmp_path_factory: pytest.TempPathFactory) -> None:
    import os
    import tempfile

    with tempfile.TemporaryDirectory(prefix="hpcresume-test-") as name:
        os.chmod(name, 0o777)
        run = Path(name) / "run"
        with unprivileged():
            hr.save(run, small_state(1), step=1)
        (run / "attempts" / "0001").chmod(0)  # whose claim it is cannot be read: not this process's own
        with unprivileged(), pytest.raises(HpcresumeError) as caught:
            hr.save(run, small_state(2), step=2)
        check(caught.value)
        (run / "attempts" / "0001").chmod(0o700)
