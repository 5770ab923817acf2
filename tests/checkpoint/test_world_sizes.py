"""Row 12 of the reliability matrix: a state saved by some ranks comes back on any other number of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.errors import ModelChangedError
from hpcresume.model import GlobalSlice
from tests.checkpoint.on_ranks import errors_of, load, save
from tests.checkpoint.slices import my_slice
from tests.checkpoint.states import same

SHAPES = [
    (),
    (1,),
    (7,),
    (64,),
    (0,),
    (3, 0),
    (5, 4),
    (2, 3, 4),
    (1, 9),
    (33, 2),
    (0, 5),
    (8, 8),
    (13,),
    (4, 1, 5),
    (17,),
]
DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]


def wholes() -> dict[str, Any]:
    """30 global arrays: the shapes, replicated and sliced, torch's dtypes in turn and numpy."""
    found: dict[str, Any] = {}
    generator = np.random.default_rng(5)
    for i, shape in enumerate(SHAPES):
        values = torch.from_numpy(generator.integers(0, 200, shape, dtype=np.int16)).to(DTYPES[i % len(DTYPES)])
        found[f"replicated{i}"] = values
        sliced_shape = shape or (3, 5)
        if i % 3 == 2:
            found[f"sliced{i}"] = generator.standard_normal(sliced_shape)
        else:
            found[f"sliced{i}"] = torch.from_numpy(generator.standard_normal(sliced_shape)).to(DTYPES[i % len(DTYPES)])
    return found


def blank(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else np.zeros_like(value)


def on_ranks(whole: dict[str, Any], rank: int, size: int, seed: int, make: Callable[[Any], Any]) -> dict[str, Any]:
    """The state of one rank: replicated arrays whole, the others as blocks cut along an axis of their own."""
    state = {}
    for i, (name, value) in enumerate(whole.items()):
        value = make(value)
        cut = name.startswith("sliced")
        state[name] = my_slice(value, i % value.ndim, rank, size, seed + i) if cut else value
    return state


@pytest.mark.parametrize("saved_on", range(1, 9))
def test_a_state_comes_back_bit_for_bit_on_any_other_number_of_ranks(tmp_path: Path, saved_on: int) -> None:
    whole = wholes()
    assert len(whole) == 30
    run = tmp_path / "run"
    save(run, saved_on, lambda ranks: on_ranks(whole, ranks.rank, saved_on, 1, lambda v: v))
    compared = 0
    for size in range(1, 9):
        for found in load(run, size):
            assert same(found, whole), "without into=, slices come back as the whole global array"
        filled = load(run, size, lambda ranks, size=size: on_ranks(whole, ranks.rank, size, 2, blank))
        for rank, state in enumerate(filled):
            expected = on_ranks(whole, rank, size, 2, lambda v: v)
            for name, value in expected.items():
                here = state[name]
                if isinstance(value, GlobalSlice):
                    value, here = value.array, here.array
                assert same(here, value), (name, rank, size)
        compared += len(whole)
    print(f"saved on {saved_on} ranks, restored on 1 to 8: {compared} global arrays, all equal")
    assert compared * 8 == 1920


def test_a_slice_of_another_global_shape_is_a_changed_model_on_all_ranks(tmp_path: Path) -> None:
    save(tmp_path / "run", 1, lambda ranks: {"m": {"w": GlobalSlice(torch.zeros(4), (4,), (0,))}})
    found = errors_of(
        2, lambda r: hr.load(tmp_path / "run", {"m": {"w": GlobalSlice(torch.zeros(3), (6,), (3 * r.rank,))}}, comm=r)
    )
    assert isinstance(found[0], ModelChangedError)
    assert "m/w" in str(found[0])
