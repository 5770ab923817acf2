"""Saving and loading by real processes under a real mpiexec: both write paths, broken MPI-IO, ranks that are killed."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import pytest

import hpcresume as hr
from hpcresume.checkpoint.retire import sweep
from hpcresume.io.paths import RunPaths
from tests.checkpoint.runs import restart
from tests.support.mpi import mpiexec

pytestmark = pytest.mark.mpi

DRIVER = [sys.executable, "-m", "tests.checkpoint.mpi_driver"]
ROOT = str(Path(__file__).parents[2])


def drive(tmp_path: Path, ranks: int, scenario: str, *arguments: object, code: int | None = 0) -> list[dict[str, Any]]:
    """Run a scenario of the driver; what each rank that got so far wrote down, in rank order."""
    out = tmp_path / f"out-{scenario}-{ranks}-{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    argv = [*DRIVER, scenario, str(out), *map(str, arguments)]
    done = mpiexec(ranks, argv, env={"PYTHONPATH": ROOT}, timeout=60)
    if code is not None:
        assert done.returncode == code, done.stderr
    return [json.loads(path.read_text()) for path in sorted(out.iterdir())]


def twins(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs with the same run id, so that equal content means equal bytes."""
    one, two = tmp_path / "posix-run", tmp_path / "mpiio-run"
    hr.save(one, {}, step=0)
    shutil.copytree(one, two)
    return one, two


@pytest.mark.parametrize("ranks", [2, 4])
def test_both_write_paths_give_files_equal_to_the_last_byte(tmp_path: Path, ranks: int) -> None:
    one, two = twins(tmp_path)
    answers = drive(tmp_path, ranks, "save_each", f"{one}=posix", f"{two}=mpiio")
    assert len(answers) == ranks
    assert all(answer["result"][str(one)][0] == "posix" for answer in answers)
    assert all(answer["result"][str(two)][0] == "mpiio" for answer in answers)
    files = [hr.Generations(run).list()[-1].path / "state.h5" for run in (one, two)]
    assert files[0].read_bytes() == files[1].read_bytes()
    for run in (one, two):
        generations = hr.Generations(run)
        assert generations.verify(generations.list()[-1]).ok
    with h5py.File(files[1]) as file:
        assert file["r0"].shape == (50, 7)
        assert file["rng"][:, 0].tolist() == list(range(ranks))


def test_auto_finds_mpi_io_to_work_and_takes_it(tmp_path: Path) -> None:
    answers = drive(tmp_path, 2, "save_each", f"{tmp_path / 'run'}=auto")
    for answer in answers:
        path, events = answer["result"][str(tmp_path / "run")]
        assert path == "mpiio"
        assert [e["chosen"] for e in events] == ["mpiio"]
    assert [p.name for p in (tmp_path / "run" / "generations").iterdir()] == ["g000000000001-a0001"]


def test_mpi_io_that_writes_wrong_bytes_is_found_by_the_probe_and_not_used(tmp_path: Path) -> None:
    for answer in drive(tmp_path, 2, "broken_from_the_start", tmp_path / "run"):
        path, events = answer["result"]
        assert path == "posix"
        assert "different" in events[0]["reason"]
    assert hr.Generations(tmp_path / "run").verify("g000000000001-a0001").ok


def test_mpi_io_that_breaks_later_is_found_by_the_read_back_on_all_ranks(tmp_path: Path) -> None:
    answers = drive(tmp_path, 4, "broken_after_the_probe", tmp_path / "run")
    assert [answer["error"] for answer in answers] == ["SaveError"] * 4
    assert len({answer["text"] for answer in answers}) == 1
    assert "what rank 1 wrote" in answers[0]["text"]
    assert [p.name for p in (tmp_path / "run" / "generations").iterdir()] == ["g000000000001-a0001"]


def test_no_space_on_one_rank_in_the_middle_of_collective_writes_is_told_to_all(tmp_path: Path) -> None:
    answers = drive(tmp_path, 4, "no_space_on_one_rank", tmp_path / "run")
    assert [answer["error"] for answer in answers] == ["NoSpaceError"] * 4
    assert "rank 1" in answers[0]["text"]
    assert [p.name for p in (tmp_path / "run" / "generations").iterdir()] == ["g000000000001-a0001"]


@pytest.mark.parametrize("write_path", ["posix", "mpiio"])
def test_each_rank_syncs_what_it_wrote_before_the_generation_becomes_visible(tmp_path: Path, write_path: str) -> None:
    """Through a descriptor that was open before the first byte, or an error of writeback could be told to another."""
    answers = [answer["result"] for answer in drive(tmp_path, 2, "synced", tmp_path / "run", write_path)]
    (visible,) = [at for a in answers for name, at, _ in a["notes"] if name.startswith("rename g000000000001")]
    assert len(answers) == 2
    for answer in answers:
        began, ended = answer["wrote"]
        synced = [at for name, at, opened in answer["notes"] if name == "fsync" and opened < began]
        assert any(ended < at < visible for at in synced), answer


def test_a_state_is_restored_on_other_numbers_of_processes(tmp_path: Path) -> None:
    runs = {ranks: tmp_path / f"run{ranks}" for ranks in (1, 2, 4)}
    for ranks, run in runs.items():
        drive(tmp_path, ranks, "save_each", f"{run}=auto")
    pairs = 0
    for ranks in (1, 2, 3, 4):
        answers = drive(tmp_path, ranks, "restore_each", *runs.values())
        assert [answer["result"] for answer in answers] == [(12 + 6) * len(runs)] * ranks
        pairs += len(runs)
    print(print(f"{pairs} restores under mpiexec of what 1, 2, 4 ranks saved: 12 arrays whole, 6 cut anew, all equal"))


DEATHS = [
    *itertools.product(["posix", "mpiio"], ["write"], [0, 1]),
    ("mpiio", "read-back", 1),
    ("posix", "rename", 0),
    ("posix", "after-rename", 0),
]


@pytest.mark.parametrize(("write_path", "where", "victim"), DEATHS)
def test_a_rank_killed_while_saving_leaves_no_half_generation_and_hangs_nobody(
    tmp_path: Path, write_path: str, where: str, victim: int
) -> None:
    run = tmp_path / "run"
    began = time.monotonic()
    answers = drive(tmp_path, 2, "killed_while_saving", run, write_path, where, victim, code=137)
    assert time.monotonic() - began < 30
    assert len(answers) < 2, "the victim wrote nothing"
    generations = hr.Generations(run)
    visible = [g.step for g in generations.list()]
    assert visible == ([1, 2] if where == "after-rename" else [1])
    assert generations.damaged() == []
    assert all(generations.verify(g).ok for g in generations.list())
    left = [p.name for p in (run / "generations").iterdir() if p.name.startswith(".")]
    assert len(left) == (where != "after-rename"), "killed, so its staging directory is there"
    attempt, restored = restart(RunPaths(run))
    restart(RunPaths(run))
    assert restored.generation is not None
    assert restored.generation.step == visible[-1]
    assert sweep(RunPaths(run), attempt=attempt + 1) == left
