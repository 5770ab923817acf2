"""Every format version ever written stays readable: runs written then, held against the values written down here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.checkpoint.run import read_run
from hpcresume.io.paths import RunPaths
from hpcresume.model import FORMAT_VERSION, EveryRank, GlobalSlice
from hpcresume.ops.resources import example_path
from hpcresume.testing.thread_ranks import ThreadRanks, run_ranks, unwrap
from tests.checkpoint.states import same

DATA = Path(__file__).parent / "data"
FIRST, SECOND = "g000000000001-a0001", "g000000000002-a0002"


@pytest.fixture(params=sorted(path.name for path in DATA.glob("format-*")))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run that a format version wrote: two attempts, one generation each, of two ranks."""
    shutil.copytree(DATA / request.param, tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (0, 0))  # git gives files the time of the clone, which would pass for a sign of life
    return tmp_path / "run"


def replicated(step: int) -> dict[str, Any]:
    """What all ranks shared at a step."""
    weight = {
        1: torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        2: torch.tensor([[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]),
    }[step]
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x7F800000], dtype=np.uint32)
    halves = torch.tensor([0x0000, 0x3EAB, 0x3F2B, 0x3F80, 0x3FAB], dtype=torch.int32).to(torch.int16)
    return {
        "model": {
            "weight": weight,
            "tied": weight,
            "half": halves.view(torch.bfloat16),
            "mask": torch.tensor([True, False, True, False]),
            "waves": torch.tensor([1 + 2j, complex(-0.0, -1.0)], dtype=torch.complex64),
            "scalar": torch.tensor(step),
            "empty": torch.empty((0, 3), dtype=torch.float64),
            "nan": bits.view(np.float32),
        },
        "optimizer": {"state": {0: {"step": step, "lr": 0.1}}, "groups": [(0.9, 0.999), None]},
        "plain": {
            "text": "naïve",
            "raw": b"\x00\xff",
            "inf": float("inf"),
            "large": 1180591620717411303424,
            "yes": True,
        },
    }


def grid(step: int) -> np.ndarray[Any, Any]:
    """The global array that two ranks saved in halves, by columns."""
    rows = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17], [18, 19, 20, 21, 22, 23]]
    return np.array(rows, dtype=np.int32) * step


KEYS = [np.array([0, 1, 2], np.uint64), np.array([1, 2, 3], np.uint64)]
ODD = [np.array([0], np.int16), np.array([1, 1], np.int16)]


def test_the_version_that_is_written_now_has_its_files() -> None:
    known = {int(path.name.removeprefix("format-")) for path in DATA.glob("format-*")}
    assert known == set(range(1, FORMAT_VERSION + 1))
    for version in known:
        assert read_run(RunPaths(DATA / f"format-{version}"))["format_version"] == version


@pytest.mark.parametrize("step", [1, 2])
def test_every_value_is_what_it_was(old: Path, step: int) -> None:
    found = hr.load(old / "generations" / (FIRST, SECOND)[step - 1]).state
    shared = {name: found[name] for name in replicated(step)}
    assert same(shared, replicated(step))
    assert found["model"]["tied"].data_ptr() == found["model"]["weight"].data_ptr()
    assert same(found["grid"], grid(step))
    assert isinstance(found["rng"], EveryRank)
    for rank in (0, 1):
        assert same(found["rng"][rank], {"key": KEYS[rank], "position": rank})
        assert same(found["odd"][rank], ODD[rank])


def test_its_ranks_get_their_own_parts_back(old: Path) -> None:
    def act(ranks: ThreadRanks) -> bool:
        mine = GlobalSlice(np.zeros((4, 3), dtype=np.int32), (4, 6), (0, 3 * ranks.rank))
        found = hr.load(old, comm=ranks)
        assert found.generation.name == SECOND
        state = {**found.state, "grid": mine}
        hr.load(old, into=state, comm=ranks)
        assert same(mine.array, grid(2)[:, 3 * ranks.rank : 3 * ranks.rank + 3])
        assert same(state["odd"], ODD[ranks.rank])
        return same(state["rng"], {"key": KEYS[ranks.rank], "position": ranks.rank})

    assert unwrap(run_ranks(2, act)) == [True, True]


def test_its_history_is_understood_and_every_byte_verifies(old: Path) -> None:
    generations = hr.Generations(old)
    assert [g.name for g in generations.list()] == [FIRST, SECOND]
    assert [g.name for g in generations.lineage()] == [SECOND, FIRST]
    newest = generations.newest()
    assert newest is not None
    assert (newest.name, newest.parent, newest.world_size) == (SECOND, FIRST, 2)
    assert [generations.verify(g).ok for g in generations.list()] == [True, True]


def test_single_tensors_are_read_from_it(old: Path) -> None:
    newest = hr.Generations(old).newest()
    assert newest is not None
    assert same(hr.read_tensor(newest, "model/half"), replicated(2)["model"]["half"])
    assert same(hr.read_tensor(newest, "grid", (slice(1, 3), 4)), grid(2)[1:3, 4])
    assert same(hr.read_tensor(newest, "rng/key"), np.stack(KEYS))


def test_it_is_gone_on_from(old: Path) -> None:
    saved = hr.save(old, {"a": 1}, step=3)
    assert (saved.attempt, saved.parent) == (3, SECOND)
    assert [g.name for g in hr.Generations(old).lineage()] == [saved.name, SECOND, FIRST]


def test_the_reader_that_needs_none_of_us_agrees(old: Path) -> None:
    program = str(example_path("read_without_hpcresume.py"))
    for name in (FIRST, SECOND):
        command = [sys.executable, program, str(old / "generations" / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"{name}: every byte matches"
