"""hr.read_tensor: whole or in part, by name, reading and verifying no more than it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.errors import ConfigError, DamagedError, NoGenerationError
from hpcresume.io.files import Files, substituted
from hpcresume.model import RankLocal
from hpcresume.testing.damage import flip_bit
from hpcresume.testing.thread_ranks import run_ranks, unwrap
from tests.checkpoint.slices import my_slice
from tests.checkpoint.states import bits, same


@pytest.fixture
def generation(tmp_path: Path) -> hr.Generation:
    """Tensors of several kinds."""
    tied = torch.arange(6.0)
    state = {
        "cube": torch.arange(60, dtype=torch.int32).reshape(5, 4, 3),
        "half": torch.randn(7).bfloat16(),
        "numpy": np.arange(12, dtype=">f8").reshape(3, 4),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "tied": [tied, tied],
        "z": torch.complex(torch.ones(3), torch.arange(3.0)),
    }
    return hr.save(tmp_path / "run", state, step=1)


@pytest.mark.parametrize("name", ["cube", "half", "numpy", "scalar", "empty", "tied/0", "tied/1", "z"])
def test_a_whole_tensor_comes_back_by_name(generation: hr.Generation, name: str) -> None:
    state: Any = hr.load(generation).state
    for key in name.split("/"):
        state = state[int(key) if key.isdigit() else key]
    assert same(hr.read_tensor(generation, name), state)


ALL = slice(None)
SLICES: list[Any] = [
    0, 4, -1, -5, ALL, slice(1, 3), slice(-2, None), slice(None, None, 2), slice(4, 0, 1), slice(5, 9), slice(1, 5, 3),
    (0, 0), (0, 0, 0), (slice(1, 3), 2), (slice(1, 3), ALL, slice(0, 2)), (-1, slice(1, None, 2)), (np.int64(2),),
    (2, np.int32(1), ALL), slice(0, 0), (ALL, slice(0, 0)),
]  # fmt: skip


@pytest.mark.parametrize("part", SLICES, ids=repr)
def test_a_part_is_what_torch_would_cut_out(generation: hr.Generation, part: Any) -> None:
    whole = torch.arange(60, dtype=torch.int32).reshape(5, 4, 3)
    assert same(hr.read_tensor(generation, "cube", part), whole[part])


@pytest.mark.parametrize(
    "part", [slice(None, None, -1), (slice(None, None, -2), slice(3, 0, -1)), (0, -1), slice(2, None, -1)], ids=repr
)
def test_a_part_of_a_numpy_array_may_run_backwards(generation: hr.Generation, part: Any) -> None:
    whole = np.arange(12, dtype=">f8").reshape(3, 4)
    assert bits(np.array(hr.read_tensor(generation, "numpy", part))) == bits(np.array(whole[part]))


@pytest.mark.parametrize(
    "part",
    [5, -6, (0, 4), (0, 0, 3), (0, 0, 0, 0), (), "x", 1.5, None.__class__, slice("a"), slice(None, None, 0), slice(0.5),
     slice(None, None, -1), ..., (0, ...), (0, "x"), [0, 1], (0, slice("x")), {1}],
    ids=repr,
)  # fmt: skip
def test_a_part_that_does_not_fit_is_a_typed_error_that_says_the_shape(generation: hr.Generation, part: Any) -> None:
    with pytest.raises(ConfigError, match=r"\(5, 4, 3\)"):
        hr.read_tensor(generation, "cube", part)


def test_a_scalar_has_no_parts(generation: hr.Generation) -> None:
    with pytest.raises(ConfigError):
        hr.read_tensor(generation, "scalar", 0)


def test_near_names_are_proposed(generation: hr.Generation) -> None:
    with pytest.raises(NoGenerationError, match="numpy"):
        hr.read_tensor(generation, "nunpy")
    with pytest.raises(NoGenerationError, match="inspect"):
        hr.read_tensor(generation, "")


class Counting(Files):
    """Counts the bytes read."""

    def __init__(self) -> None:
        self.nbytes = 0

    def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        count = super().pread_into(fd, buffer, offset)
        self.nbytes += count
        return count


def test_a_few_rows_of_a_large_tensor_read_few_bytes(tmp_path: Path) -> None:
    whole = torch.arange(4_000_000, dtype=torch.int32).reshape(4000, 1000)
    generation = hr.save(tmp_path / "run", {"w": whole}, step=1)
    counting = Counting()
    with substituted(counting):
        assert same(hr.read_tensor(generation, "w", slice(100, 103)), whole[100:103])
    assert 12_000 <= counting.nbytes <= 9 << 20


@pytest.fixture
def sliced(tmp_path: Path) -> Callable[[], tuple[hr.Generation, torch.Tensor]]:
    """A global array cut by columns among 3 ranks, and per-rank rows."""

    def make() -> tuple[hr.Generation, torch.Tensor]:
        whole = torch.arange(63.0).reshape(9, 7)

        def act(ranks: Any) -> hr.Generation:
            state = {"w": my_slice(whole, 1, ranks.rank, 3), "rng": RankLocal(np.full(4, ranks.rank))}
            return hr.save(tmp_path / "run", state, step=1, comm=ranks)

        return unwrap(run_ranks(3, act))[0], whole

    return make


def test_parts_of_global_arrays_and_rows_of_ranks(sliced: Callable[[], tuple[hr.Generation, torch.Tensor]]) -> None:
    generation, whole = sliced()
    assert same(hr.read_tensor(generation, "w"), whole)
    assert same(hr.read_tensor(generation, "w", (slice(2, 5), slice(1, 6))), whole[2:5, 1:6])
    assert same(hr.read_tensor(generation, "rng", 2), np.full(4, 2))


def test_what_is_read_is_verified_and_what_is_not_read_is_not(tmp_path: Path) -> None:
    whole = torch.zeros(9 << 20, dtype=torch.uint8)
    generation = hr.save(tmp_path / "run", {"w": whole, "b": torch.ones(2)}, step=1)
    at = generation.tensors["w"].offset + (8 << 20)
    flip_bit(generation.path / "state.h5", at)
    assert hr.read_tensor(generation, "w", slice(0, 1000)).sum() == 0
    assert hr.read_tensor(generation, "b").tolist() == [1, 1]
    with pytest.raises(DamagedError) as caught:
        hr.read_tensor(generation, "w", slice(-10, None))
    assert caught.value.tensor == "w"
    assert caught.value.offset <= at
    with pytest.raises(DamagedError):
        hr.read_tensor(generation, "w")


def test_a_generation_that_is_gone_is_a_typed_error(generation: hr.Generation) -> None:
    (generation.path / "state.h5").unlink()
    with pytest.raises(DamagedError):
        hr.read_tensor(generation, "cube")
    (generation.path / "manifest.json").unlink()
    with pytest.raises(DamagedError):
        hr.read_tensor(generation, "cube")
