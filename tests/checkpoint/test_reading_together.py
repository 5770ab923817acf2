"""Reading back what others wrote, and finding damage together."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.checkpoint import readback, writers
from hpcresume.checkpoint.history import read_sealed
from hpcresume.checkpoint.layout import Unit
from hpcresume.checkpoint.restore import Restored, load_newest
from hpcresume.checkpoint.run import open_run
from hpcresume.checkpoint.save import SaveOptions, save_generation
from hpcresume.errors import SaveError
from hpcresume.io.paths import RunPaths
from hpcresume.model import RankLocal
from hpcresume.testing.damage import flip_bit
from hpcresume.testing.thread_ranks import ThreadRanks, run_ranks, unwrap
from tests.checkpoint.on_ranks import errors_of, leftovers, load, save
from tests.checkpoint.slices import my_slice
from tests.checkpoint.states import small_state


@pytest.mark.parametrize("nodes", [[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 2, 2], [0, 0, 0, 0]])
def test_every_byte_is_read_back_once_by_a_rank_of_another_node(
    tmp_path: Path, nodes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Unit, int]] = []
    compare = readback.compare

    def recording(path: Path, size: int, pairs: list[tuple[Unit, bytes]], *rest: Any) -> None:
        rank = int(threading.current_thread().name.removeprefix("rank "))
        read.extend((unit, rank) for unit, _ in pairs)
        compare(path, size, pairs, *rest)

    monkeypatch.setattr(readback, "compare", recording)
    state = {"t": torch.randn(40_000), "n": np.arange(10)}
    generation = save(tmp_path / "run", 4, lambda r: {**state, "l": RankLocal(r.rank * np.ones(9))}, nodes=nodes)
    sealed = read_sealed(generation.path)
    assert Counter(unit for unit, _ in read) == Counter(sealed.body.units(sealed.body.files[0]))
    for unit, rank in read:
        assert rank != unit.writer
        if len(set(nodes)) > 1:
            assert nodes[rank] != nodes[unit.writer]
    assert len({rank for _, rank in read}) > 1


def test_bytes_that_come_back_different_fail_the_save_on_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = writers.PosixWriter.write

    def corrupting(self: Any, path: Path, units: Any, sources: Any, binding: Any, ranks: ThreadRanks) -> list[bytes]:
        digests = write(self, path, units, sources, binding, ranks)
        if ranks.rank == 0:
            flip_bit(path, units[0].offset + 3)
        return digests

    save(tmp_path / "run", 3, lambda ranks: small_state(1))
    monkeypatch.setattr(writers.PosixWriter, "write", corrupting)
    found = errors_of(3, lambda ranks: hr.save(tmp_path / "run", small_state(2), step=2, comm=ranks))
    assert type(found[0]) is SaveError
    assert "model/weight" in str(found[0])
    assert [g.step for g in hr.Generations(tmp_path / "run").list()] == [1]
    assert leftovers(tmp_path / "run") == []


def restore_on(run: Path, size: int) -> list[Restored]:
    return unwrap(run_ranks(size, lambda ranks: load_newest(RunPaths(run), ranks)))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_one_bad_unit_makes_all_ranks_fall_back_to_the_same_generation(tmp_path: Path, size: int) -> None:
    def state(ranks: ThreadRanks, step: int) -> Any:
        return {
            "rep": torch.full((9000,), float(step)),
            "loc": RankLocal(np.full(5, ranks.rank + step)),
            "odd": RankLocal(np.arange(ranks.rank + 1)),
            "cut": my_slice(torch.arange(30.0).reshape(5, 6) + step, 1, ranks.rank, 3),
        }

    run = tmp_path / "run"
    save(run, 3, lambda ranks: state(ranks, 1), step=1)
    newest = save(run, 3, lambda ranks: state(ranks, 2), step=2)
    sealed = read_sealed(newest.path)
    (file,) = sealed.body.files
    units = sealed.body.units(file)
    assert len(units) > 15
    for unit in units:
        path = newest.path / file.name
        flip_bit(path, unit.end - 1)
        results = restore_on(run, size)
        assert {r.generation and r.generation.step for r in results} == {1}
        assert len({r.skipped for r in results}) == 1
        (skipped,) = results[0].skipped
        name = file.tensors[unit.tensor].name if unit.tensor >= 0 else ""
        assert (skipped.generation, skipped.tensor, skipped.offset) == (newest.name, name, unit.offset)
        flip_bit(path, unit.end - 1)
    assert {r.generation and r.generation.step for r in restore_on(run, size)} == {2}
    print(f"{len(units)} units damaged one at a time, found by {size} ranks each time")


def test_every_unit_is_read_by_some_rank_and_none_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcresume.checkpoint.reader import FileReader

    seen: Counter[int] = Counter()
    read = FileReader._read_checked

    def counting(self: FileReader, index: int, *rest: Any) -> Any:
        seen[index] += 1
        return read(self, index, *rest)

    whole = torch.randn(40_000)
    run = tmp_path / "run"
    save(run, 4, lambda ranks: {"cut": my_slice(whole, 0, ranks.rank, 4), "own": RankLocal(np.ones(ranks.rank + 1))})
    monkeypatch.setattr(FileReader, "_read_checked", counting)
    blank_whole = torch.zeros(40_000)
    load(run, 4, lambda r: {"cut": my_slice(blank_whole, 0, r.rank, 4), "own": RankLocal(np.zeros(r.rank + 1))})
    sealed = read_sealed(hr.Generations(run).list()[0].path)
    assert sorted(seen) == list(range(len(sealed.body.units(sealed.body.files[0]))))
    assert max(seen.values()) <= 3, "a rank reads what it needs and its share of the rest"


@pytest.mark.parametrize("read_back", ["all", "sample", "none"])
def test_a_generation_says_how_much_of_it_was_read_back(tmp_path: Path, read_back: str) -> None:
    def act(ranks: ThreadRanks) -> hr.Generation:
        run = open_run(tmp_path / "run", create=True, ranks=ranks)
        options = SaveOptions(read_back=read_back)
        return save_generation(run, small_state(1), step=1, attempt=1, parent=None, ranks=ranks, options=options)

    assert {g.read_back for g in unwrap(run_ranks(2, act))} == {read_back}
    assert {g.read_back for g in hr.Generations(tmp_path / "run").list()} == {read_back}
