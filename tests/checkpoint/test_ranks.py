"""Several ranks saving one state: who writes what, what belongs to one rank, and trees that do not fit together."""

from __future__ import annotations

import threading
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.checkpoint import writers
from hpcresume.checkpoint.history import read_sealed
from hpcresume.checkpoint.run import open_run
from hpcresume.checkpoint.save import save_generation
from hpcresume.errors import (
    GenerationConflictError,
    RankStructureError,
    SliceError,
    UntrackableError,
    UsageError,
    WorldSizeError,
)
from hpcresume.model import Event, EveryRank, GlobalSlice, RankLocal
from hpcresume.testing.thread_ranks import ThreadRanks, ThreadWorld, run_ranks, unwrap
from tests.checkpoint.on_ranks import errors_of, load, save
from tests.checkpoint.states import bits, same


@pytest.mark.parametrize("size", range(1, 9))
def test_replicated_bytes_are_written_once_and_shared_evenly(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    pwrite_all = writers.pwrite_all

    def record(fd: int, data: memoryview, offset: int) -> None:
        written[int(threading.current_thread().name.removeprefix("rank "))].append((offset, len(data)))
        pwrite_all(fd, data, offset)

    monkeypatch.setattr(writers, "pwrite_all", record)
    state = {f"t{i}": torch.randn(1000 * (i + 1)) for i in range(9)}
    generation = save(tmp_path / "run", size, lambda ranks: state)

    total = sum(t.numel() * 4 for t in state.values())
    assert sum(n for each in written.values() for _, n in each) == total, "each byte once"
    places = sorted(place for each in written.values() for place in each)
    assert all(a + n <= b for (a, n), (b, _) in pairwise(places)), "no byte twice"
    shares = [sum(n for _, n in written[rank]) for rank in range(size)]
    unit = read_sealed(generation.path).body.files[0].unit_bytes
    assert max(shares) - min(shares) <= 2 * unit
    assert abs(max(shares) - total / size) <= unit


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_rank_local_values_come_back_to_their_rank(tmp_path: Path, size: int) -> None:
    def state(ranks: ThreadRanks) -> Any:
        r = ranks.rank
        return {
            "shared": torch.arange(5.0),
            "stacked": RankLocal({"rng": np.full(4, r, np.uint32), "n": r}),
            "shapes": RankLocal(torch.full((r, 2), float(r))),
            "kinds": RankLocal([None, torch.tensor(r), {"x": np.arange(r)}, "text"][r % 4]),
            "deep": [RankLocal(np.float32(r)), {"t": RankLocal((torch.ones(2, dtype=torch.bool), r))}],
        }

    def unwrapped(value: Any) -> Any:
        if isinstance(value, RankLocal):
            return value.value
        if isinstance(value, dict):
            return {key: unwrapped(each) for key, each in value.items()}
        return [unwrapped(each) for each in value] if isinstance(value, list) else value

    generation = save(tmp_path / "run", size, state)
    assert generation.tensors["stacked/rng"].shape == (size, 4)
    for rank, found in enumerate(load(tmp_path / "run", size)):
        assert same(found, unwrapped(state(ThreadRanks(ThreadWorld(size), rank))))


def test_rank_local_values_on_another_number_of_ranks_come_back_as_every_ranks(tmp_path: Path) -> None:
    save(
        tmp_path / "run", 3, lambda ranks: {"seed": RankLocal(ranks.rank), "t": RankLocal(torch.full((2,), ranks.rank))}
    )
    for found in load(tmp_path / "run", 2):
        assert isinstance(found["seed"], EveryRank)
        assert list(found["seed"]) == [0, 1, 2]
        assert [bits(t) for t in found["t"]] == [bits(torch.full((2,), r)) for r in range(3)]


def test_rank_local_values_do_not_fill_a_state_of_another_number_of_ranks(tmp_path: Path) -> None:
    save(tmp_path / "run", 3, lambda ranks: {"w": torch.zeros(2), "seed": RankLocal(ranks.rank)})
    found = errors_of(
        2, lambda ranks: hr.load(tmp_path / "run", {"w": torch.ones(2), "seed": RankLocal(0)}, comm=ranks)
    )
    assert isinstance(found[0], WorldSizeError)
    assert "3 ranks" in str(found[0])
    assert "seed" in str(found[0])


def test_replicas_that_differ_are_kept_per_rank_and_named_in_an_event(tmp_path: Path) -> None:
    events: list[Event] = []

    def act(ranks: ThreadRanks) -> Any:
        r = ranks.rank
        same_weight = torch.ones(3)
        state = {
            "w": same_weight,
            "tied": same_weight,
            "bn": {"mean": torch.full((3,), float(r))},
            "loss": 0.5 + r,
            "nan": float("nan"),
        }
        run = open_run(tmp_path / "run", create=True, ranks=ranks)
        emit = events.append if r == 0 else (lambda event: None)
        save_generation(run, state, step=1, attempt=1, parent=None, ranks=ranks, emit=emit)
        return state

    states = unwrap(run_ranks(3, act))
    for state, found in zip(states, load(tmp_path / "run", 3), strict=True):
        assert same(found, state)
    (event,) = [e for e in events if e.name == "replicas-differ"]
    assert event.fields["paths"] == ["bn['mean']", "loss"]
    assert hr.Generations(tmp_path / "run").list()[0].tensors["w"].scope == "replicated"


def test_a_tied_tensor_that_differs_is_kept_per_rank_under_both_names(tmp_path: Path) -> None:
    def state(ranks: ThreadRanks) -> Any:
        tensor = torch.full((2,), float(ranks.rank))
        return {"a": tensor, "b": tensor}

    save(tmp_path / "run", 2, state)
    for rank, found in enumerate(load(tmp_path / "run", 2)):
        assert same(found, {"a": torch.full((2,), float(rank)), "b": torch.full((2,), float(rank))})


@pytest.mark.parametrize(
    ("zero", "other", "path"),
    [
        ({"a": {"x": torch.ones(2)}}, {"a": {"x": torch.ones(3)}}, "a['x']"),
        ({"a": torch.ones(2)}, {"a": torch.ones(2).double()}, "a"),
        ({"a": [1, 2]}, {"a": [1]}, "a[1]"),
        ({"a": 1}, {"b": 1}, "a"),
        ({"a": 1}, {"a": torch.ones(1)}, "a"),
        ({0: torch.ones(2), "0": torch.ones(1)}, {0: torch.ones(2), "0": torch.ones(2)}, "0"),
        ({"a": {"b": torch.ones(1)}, "a['b']": 1}, {"a": {"b": torch.ones(2)}, "a['b']": 1}, "a['b']"),
        ({"a": [1]}, {"a": (1,)}, ""),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ""),
        ({"a": {}}, {"a": []}, ""),
    ],
)
def test_trees_that_differ_between_ranks_are_refused_by_rank_and_path(
    tmp_path: Path, zero: Any, other: Any, path: str
) -> None:
    found = errors_of(
        3, lambda ranks: hr.save(tmp_path / "run", other if ranks.rank == 2 else zero, step=1, comm=ranks)
    )
    assert isinstance(found[0], RankStructureError)
    assert "rank 2" in found[0].where
    assert path in found[0].where
    assert hr.Generations(tmp_path / "run").list() == []


def test_a_value_that_one_rank_cannot_save_fails_the_save_on_all_by_path(tmp_path: Path) -> None:
    found = errors_of(
        3, lambda ranks: hr.save(tmp_path / "run", {"a": [1, {1} if ranks.rank == 1 else 2]}, step=1, comm=ranks)
    )
    assert isinstance(found[0], UntrackableError)
    assert "rank 1" in str(found[0])
    assert "a[1]" in str(found[0])


@pytest.mark.parametrize("bad", [("x",), 3, (1.5,), None])
def test_a_slice_with_nonsense_on_one_rank_fails_the_save_on_all(tmp_path: Path, bad: Any) -> None:
    def state(ranks: ThreadRanks) -> Any:
        return {"a": GlobalSlice(np.zeros(2), (4,), bad if ranks.rank else (0,))}

    found = errors_of(2, lambda ranks: hr.save(tmp_path / "run", state(ranks), step=1, comm=ranks))
    assert "GlobalSlice" in str(found[0])
    assert "rank 1: a" in found[0].where


@pytest.mark.parametrize(
    ("starts", "message"),
    [([0, 0], "ranks 0 and 1 overlap"), ([0, 3], "rank 1"), ([0, 1], "overlap")],
)
def test_slices_that_do_not_tile_are_refused_on_all_ranks(tmp_path: Path, starts: list[int], message: str) -> None:
    def state(ranks: ThreadRanks) -> Any:
        return {"m": {"a": GlobalSlice(np.zeros(2), (4,), (starts[ranks.rank],))}}

    found = errors_of(2, lambda ranks: hr.save(tmp_path / "run", state(ranks), step=1, comm=ranks))
    assert isinstance(found[0], SliceError)
    assert message in str(found[0])
    assert "m/a" in str(found[0])


def test_ranks_that_save_different_steps_are_refused(tmp_path: Path) -> None:
    found = errors_of(3, lambda ranks: hr.save(tmp_path / "run", {"a": 1}, step=4 + (ranks.rank == 2), comm=ranks))
    assert isinstance(found[0], UsageError)
    assert "rank 2" in str(found[0])
    assert not (tmp_path / "run").exists()


def test_a_step_that_is_no_step_on_one_rank_fails_on_all(tmp_path: Path) -> None:
    found = errors_of(2, lambda ranks: hr.save(tmp_path / "run", {}, step=-1 if ranks.rank else 1, comm=ranks))
    assert "rank 1" in str(found[0])


def test_other_content_on_one_rank_is_a_conflict_on_all(tmp_path: Path) -> None:
    def state(ranks: ThreadRanks, value: float) -> Any:
        return {"a": torch.ones(3), "b": RankLocal(torch.tensor(value if ranks.rank == 1 else 0.0))}

    save(tmp_path / "run", 2, lambda ranks: state(ranks, 1.0))
    again = save(tmp_path / "run", 2, lambda ranks: state(ranks, 1.0))
    assert again == hr.Generations(tmp_path / "run").newest()
    found = errors_of(2, lambda ranks: hr.save(tmp_path / "run", state(ranks, 2.0), step=1, comm=ranks))
    assert isinstance(found[0], GenerationConflictError)
    found = errors_of(3, lambda ranks: hr.save(tmp_path / "run", state(ranks, 1.0), step=1, comm=ranks))
    assert isinstance(found[0], GenerationConflictError), "another world size is other content"
