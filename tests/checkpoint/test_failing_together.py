"""One rank fails in any phase of a save or load: every rank raises, nothing is committed, nobody hangs."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume import errors
from hpcresume.checkpoint import phases, readback
from hpcresume.errors import HpcresumeError
from hpcresume.model import RankLocal
from hpcresume.testing.thread_ranks import ThreadRanks, run_ranks, unwrap
from tests.checkpoint.on_ranks import errors_of, leftovers, load, save
from tests.checkpoint.states import same, small_state


class FailIn:
    """Makes the local work of `rank` in one phase of the protocol fail; records the phases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phase, self.rank, self.error = "", -1, OSError(errno.EIO, os.strerror(errno.EIO))
        self.fired = 0
        self.seen: list[str] = []
        vote = phases.vote

        def voting(ranks: ThreadRanks, phase: str, error: BaseException | None) -> None:
            if ranks.rank == 0:
                self.seen.append(phase)
            if phase == self.phase and ranks.rank == self.rank and error is None:
                self.fired += 1
                error = phases.as_typed(phase, self.error)
            vote(ranks, phase, error)

        monkeypatch.setattr(phases, "vote", voting)


def test_one_rank_failing_in_any_phase_fails_the_save_on_all_and_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(ranks: ThreadRanks, step: int) -> Any:
        return {**small_state(step), "rng": RankLocal(np.full(3, ranks.rank)), "big": torch.full((5000,), float(step))}

    fail = FailIn(monkeypatch)
    run = tmp_path / "run"
    save(run, 3, lambda ranks: state(ranks, 1), step=1)
    fail.seen.clear()
    save(run, 3, lambda ranks: state(ranks, 2), step=2)
    every = list(dict.fromkeys(fail.seen))
    assert len(every) >= 12
    cases = 0
    for fail.phase in every:
        for fail.rank in range(3):
            fail.fired, step = 0, 100 + cases
            cases += 1
            found = errors_of(3, lambda ranks, step=step: hr.save(run, state(ranks, step), step=step, comm=ranks))
            assert fail.fired == 1, fail.phase
            assert all(f"rank {fail.rank}" in e.where and e.what == found[0].what for e in found)
            assert leftovers(run) == [], fail.phase
            steps = [g.step for g in hr.Generations(run).list()]
            if fail.phase == "commit the generation":
                assert steps.pop() == step, "its rename had happened: visible, and it verifies"
                (newest,) = (g for g in hr.Generations(run).list() if g.step == step)
                assert hr.Generations(run).verify(newest).ok
                shutil.rmtree(newest.path)
            assert steps == [1, 2], fail.phase
    fail.phase = ""
    for rank, found_state in enumerate(load(run, 3)):
        assert same(found_state["model"], small_state(2)["model"])
        assert same(found_state["rng"], np.full(3, rank))
    save(run, 3, lambda ranks: state(ranks, 9), step=999)
    print(f"one of 3 ranks failing in each of {len(every)} phases: {cases} times all raised, nothing was committed")


def test_one_rank_failing_in_any_phase_of_a_load_fails_it_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = FailIn(monkeypatch)
    run = tmp_path / "run"
    save(run, 2, lambda ranks: small_state(1))
    fail.seen.clear()
    into = [small_state(5), small_state(5)]
    unwrap(run_ranks(2, lambda ranks: hr.load(run, into[ranks.rank], comm=ranks)))
    every = list(dict.fromkeys(fail.seen))
    assert len(every) >= 6
    for fail.phase in every:
        for fail.rank in range(2):
            fail.fired = 0
            found = errors_of(2, lambda ranks: hr.load(run, into[ranks.rank], comm=ranks))
            assert fail.fired == 1
            assert f"rank {fail.rank}" in found[0].where


def test_a_rank_killed_by_an_interrupt_fails_the_others_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        if threading.current_thread().name == "rank 1":
            raise KeyboardInterrupt

    monkeypatch.setattr(readback, "compare", interrupted)
    results = run_ranks(2, lambda ranks: hr.save(tmp_path / "run", small_state(1), step=1, comm=ranks), timeout=20)
    assert isinstance(results[1], KeyboardInterrupt)
    assert isinstance(results[0], HpcresumeError)
    assert hr.Generations(tmp_path / "run").list() == []
    assert leftovers(tmp_path / "run") == []


def test_no_space_on_one_rank_is_no_space_on_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail = FailIn(monkeypatch)
    fail.phase, fail.rank, fail.error = "write the tensors", 1, OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    found = errors_of(2, lambda ranks: hr.save(tmp_path / "run", small_state(1), step=1, comm=ranks))
    assert fail.fired
    assert isinstance(found[0], errors.NoSpaceError)
    assert "quota" in str(found[0])
