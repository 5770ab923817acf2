"""Units: they tile the file without overlap, writers share evenly, blocks of global arrays are cut exactly."""

from __future__ import annotations

import itertools
import math
import os
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpcresume.checkpoint.layout import (
    MAX_UNIT_BYTES,
    Block,
    Extent,
    Unit,
    check_blocks,
    check_extent,
    gaps,
    tile,
    unit_bytes_for,
)
from hpcresume.checkpoint.units import read_unit
from hpcresume.checkpoint.writers import runs_of
from hpcresume.errors import SliceError
from tests.checkpoint.slices import cuts

MIB = 1 << 20


def covered(units: list[Unit], file_size: int) -> np.ndarray[Any, Any]:
    """How often each byte of the file lies in a unit."""
    times = np.zeros(file_size, dtype=np.int64)
    for unit in units:
        for offset, _ in runs_of(unit):
            times[offset : offset + unit.run] += 1
    return times


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Block, ...]]:
    """A global shape and one block a rank: a grid of uneven, sometimes empty cells, in any order."""
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
    parts = [draw(st.integers(1, 3)) for _ in shape]
    edges = [cuts(n, p, draw(st.integers(0, 9))) for n, p in zip(shape, parts, strict=True)]
    cells = []
    for place in itertools.product(*(range(p) for p in parts)):
        start = tuple(edges[axis][i] for axis, i in enumerate(place))
        end = tuple(edges[axis][i + 1] for axis, i in enumerate(place))
        cells.append(Block(start, tuple(b - a for a, b in zip(start, end, strict=True))))
    return shape, tuple(draw(st.permutations(cells)))


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Extent], int, int]:
    """Extents of every scope with gaps between them, the file's size, and the world size."""
    world = draw(st.integers(1, 5))
    extents, position = [], draw(st.integers(0, 40))
    for _ in range(draw(st.integers(0, 6))):
        scope = draw(st.sampled_from(["replicated", "per-rank", "one-rank"]))
        shape = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
        shape = (world, *shape) if scope == "per-rank" else shape
        dtype = draw(st.sampled_from(["float32", "int8", "complex128"]))
        extent = Extent(scope, "numpy", dtype, shape, position, owner=draw(st.integers(0, world - 1)))
        extents.append(extent)
        position += extent.nbytes + draw(st.integers(0, 9))
    return draw(st.permutations(extents)), position + draw(st.integers(0, 9)), world


@given(files(), st.integers(1, 50))
@settings(max_examples=300, deadline=None)
@example(([], 0, 1), 1)
@example(([], 9 * MIB, 1), 1)
def test_units_tile_the_file_completely_and_without_overlap(file: Any, unit_bytes: int) -> None:
    extents, size, world = file
    units = tile(extents, size, world, unit_bytes)
    assert (covered(units, size) == 1).all()
    for unit in units:
        assert 0 < unit.nbytes <= MAX_UNIT_BYTES
        assert 0 <= unit.writer < world
        if unit.tensor >= 0:
            extent = extents[unit.tensor]
            assert extent.offset <= unit.offset
            assert unit.end <= extent.offset + extent.nbytes


@given(st.lists(st.integers(0, 50_000), max_size=12), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_writers_share_replicated_bytes_evenly(sizes: list[int], world: int) -> None:
    extents, position = [], 100
    for n in sizes:
        extents.append(Extent("replicated", "numpy", "int8", (n,), position))
        position += n
    total = sum(sizes)
    unit_bytes = unit_bytes_for(total, world)
    shares: Counter[int] = Counter(dict.fromkeys(range(world), 0))
    for unit in tile(extents, position, world, unit_bytes):
        if unit.tensor >= 0:
            shares[unit.writer] += unit.nbytes
    assert sum(shares.values()) == total
    for share in shares.values():
        assert abs(share - total / world) <= unit_bytes


@pytest.mark.parametrize(
    ("nbytes", "world", "expected"),
    [(0, 1, 4096), (1, 8, 4096), (4 * 4096, 1, 4096), (10**6, 2, 126_976), (10**12, 4, MAX_UNIT_BYTES)],
)
def test_units_of_replicated_tensors_are_whole_pages_of_at_most_4_mib(nbytes: int, world: int, expected: int) -> None:
    assert unit_bytes_for(nbytes, world) == expected
    assert expected % 4096 == 0


@given(grids(), st.sampled_from(["int8", "float32", "complex128"]))
@settings(max_examples=400, deadline=None)
@example(((3, 0), (Block((0, 0), (3, 0)),)), "int8")
@example(((2, 2), (Block((0, 0), (2, 1)), Block((0, 1), (2, 1)))), "int8")
def test_blocks_of_a_global_array_are_cut_into_units_exactly(grid: Any, dtype: str) -> None:
    shape, blocks = grid
    check_blocks("x", shape, blocks)
    array = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    extent = Extent("sliced", "numpy", dtype, shape, 64, blocks=blocks)
    size = 64 + array.nbytes + 5
    units = tile([extent], size, len(blocks), 4096)
    assert (covered(units, size) == 1).all()
    file = np.zeros(size, dtype=np.uint8)
    for unit in units:
        if unit.tensor < 0:
            continue
        block = blocks[unit.writer]
        index = tuple(slice(s, s + n) for s, n in zip(block.start, block.shape, strict=True))
        source = np.ascontiguousarray(array[index]).reshape(-1).view(np.uint8)[unit.source :]
        for offset, at in runs_of(unit):
            file[offset : offset + unit.run] = source[at : at + unit.run]
    assert file[64 : 64 + array.nbytes].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("shape", "block", "units"),
    [
        ((4 * MIB,), Block((0,), (4 * MIB,)), 1),
        ((9 * MIB,), Block((0,), (9 * MIB,)), 3),
        ((3, 5 * MIB), Block((0, 0), (3, 5 * MIB)), 4),
        ((4, 10 * MIB), Block((0, MIB), (4, 5 * MIB)), 8),
        ((8, 2 * MIB), Block((0, 0), (8, MIB)), 2),
        ((2, 8, 2 * MIB), Block((0, 0, 0), (2, 8, MIB)), 4),
    ],
)
def test_units_of_blocks_stay_below_4_mib(shape: tuple[int, ...], block: Block, units: int) -> None:
    extent = Extent("sliced", "numpy", "int8", shape, 0, blocks=(block,))
    found = [unit for unit in tile([extent], math.prod(shape), 1, 4096) if unit.tensor == 0]
    assert len(found) == units
    assert max(unit.nbytes for unit in found) <= MAX_UNIT_BYTES
    assert sum(unit.nbytes for unit in found) == math.prod(block.shape)


def test_a_unit_of_narrow_columns_far_apart_is_read_in_bounded_memory(tmp_path: Any) -> None:
    rows, stride = 64, 2 * MIB
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(rows * stride)
        for row in range(rows):
            file.seek(row * stride)
            file.write(bytes([row]) * 4)
    unit = Unit(0, 0, 4, stride, rows, 0, 0)
    fd = os.open(path, os.O_RDONLY)
    tracemalloc.start()
    try:
        data = read_unit(fd, unit)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()
        os.close(fd)
    assert data is not None
    assert data.tobytes() == b"".join(bytes([row]) * 4 for row in range(rows))


@pytest.mark.parametrize(
    ("extents", "size", "expected"),
    [
        ([], 0, []),
        ([], 10, [(0, 10)]),
        ([(0, 10)], 10, []),
        ([(3, 2), (5, 0), (7, 3)], 12, [(0, 3), (5, 2), (10, 2)]),
        ([(7, 3), (3, 2)], 10, [(0, 3), (5, 2)]),
        ([(0, 0)], 4, [(0, 4)]),
    ],
)
def test_gaps_are_what_no_tensor_covers(extents: Any, size: int, expected: Any) -> None:
    assert gaps(extents, size) == expected


@pytest.mark.parametrize(("extents", "size"), [([(0, 4), (3, 2)], 9), ([(0, 10)], 9), ([(-1, 3)], 9), ([(5, 5)], 9)])
def test_tensors_that_overlap_or_leave_the_file_are_refused(extents: Any, size: int) -> None:
    with pytest.raises(ValueError, match="overlaps another one or leaves the file"):
        gaps(extents, size)


@pytest.mark.parametrize(
    ("shape", "blocks", "message"),
    [
        ((4,), [((0,), (2,)), ((1,), (3,))], "ranks 0 and 1 overlap"),
        ((4,), [((0,), (2,)), ((3,), (1,))], "hole"),
        ((4,), [((0,), (2,)), ((2,), (3,))], "rank 1"),
        ((4,), [((-1,), (5,))], "rank 0"),
        ((4,), [((0,), (4, 1))], "rank 0"),
        ((4, 4), [((0,), (4,))], "rank 0"),
        ((2, 2), [((0, 0), (2, 1)), ((0, 0), (1, 2)), ((1, 1), (1, 1))], "overlap"),
        ((4,), [((0,), (4,)), ((4,), (0,)), ((0,), (4,))], "ranks 0 and 2 overlap"),
        ((), [((), ()), ((), ())], "ranks 0 and 1 overlap"),
        ((4,), [((6,), (-2,)), ((0,), (4,))], "rank 0"),
    ],
)
def test_blocks_that_do_not_tile_are_refused_by_rank(shape: Any, blocks: Any, message: str) -> None:
    with pytest.raises(SliceError, match=message) as caught:
        check_blocks("model/w", shape, [Block(*block) for block in blocks])
    assert caught.value.where == "model/w"


@given(grids(), st.data())
@settings(max_examples=200, deadline=None)
def test_moving_or_resizing_any_block_of_a_tiling_is_noticed(grid: Any, data: st.DataObject) -> None:
    shape, blocks = grid
    full = [i for i, b in enumerate(blocks) if math.prod(b.shape)]
    if not full:
        return
    i, axis, by = (
        data.draw(st.sampled_from(full)),
        data.draw(st.integers(0, len(shape) - 1)),
        data.draw(st.sampled_from([-1, 1])),
    )
    block, field = blocks[i], data.draw(st.sampled_from(["start", "shape"]))
    moved = list(getattr(block, field))
    moved[axis] += by
    changed = Block(tuple(moved), block.shape) if field == "start" else Block(block.start, tuple(moved))
    with pytest.raises(SliceError):
        check_blocks("x", shape, [*blocks[:i], changed, *blocks[i + 1 :]])


@pytest.mark.parametrize(
    "extent",
    [
        Extent("replicated", "numpy", "int8", (-1,), 0),
        Extent("replicated", "numpy", "int8", (11,), 0),
        Extent("per-rank", "numpy", "int8", (3,), 0),
        Extent("one-rank", "numpy", "int8", (3,), 0, owner=2),
        Extent("one-rank", "numpy", "int8", (3,), 0, owner=-1),
        Extent("sliced", "numpy", "int8", (3,), 0, blocks=(Block((0,), (3,)),)),
        Extent("somewhere", "numpy", "int8", (3,), 0),
    ],
    ids=lambda e: f"{e.scope} {e.shape}",
)
def test_an_extent_that_contradicts_itself_is_refused(extent: Extent) -> None:
    with pytest.raises((ValueError, SliceError)):
        check_extent("x", extent, 10, 2)
