"""Which bytes of a generation's file form a unit, and which rank writes each. Pure arithmetic.

Everything here follows from the manifest alone, so a reader finds the same units as the writers did:
unit boundaries are computed, never stored. Units tile the file completely.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hpcresume.checkpoint import arrays
from hpcresume.errors import SliceError

__all__ = [
    "MAX_UNIT_BYTES",
    "Block",
    "Extent",
    "Unit",
    "check_blocks",
    "check_extent",
    "check_inside",
    "gaps",
    "tile",
    "tiles",
    "unit_bytes_for",
]

MAX_UNIT_BYTES = 4 << 20
"""Largest unit: small enough to name the damage closely, large enough that digests cost nothing."""
_PAGE = 4096


@dataclass(frozen=True)
class Block:
    """One rank's block of a global array: indices from `start[i]` to `start[i] + shape[i]` along axis i."""

    start: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Extent:
    """Where a tensor's bytes lie: `scope` is replicated, per-rank, one-rank or sliced.

    `shape` is the dataset's; for per-rank ones the first axis is the rank. `owner` is the writing rank of
    a one-rank tensor, `blocks` holds one block a rank of a sliced one.
    """

    scope: str
    library: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    owner: int = 0
    blocks: tuple[Block, ...] = ()

    @property
    def item_size(self) -> int:
        """Bytes of one element."""
        return arrays.item_size(self.library, self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole dataset."""
        return math.prod(self.shape) * self.item_size


@dataclass(frozen=True)
class Unit:
    """Bytes with one digest: `count` runs of `run` bytes, `stride` bytes apart, the first at `offset`.

    `tensor` is the index of the tensor, -1 for HDF5's own metadata and gaps; `writer` the rank that writes
    it; `source` the position of its first byte in the writer's own flattened array.
    """

    tensor: int
    offset: int
    run: int
    stride: int
    count: int
    writer: int
    source: int

    @property
    def nbytes(self) -> int:
        """Bytes covered."""
        return self.run * self.count

    @property
    def end(self) -> int:
        """Offset just past the last byte."""
        return self.offset + self.stride * (self.count - 1) + self.run


def unit_bytes_for(replicated_bytes: int, world_size: int) -> int:
    """Unit size for replicated tensors: whole pages, about four units a rank at least, never above 4 MiB."""
    share = math.ceil(replicated_bytes / (4 * world_size))
    return min(MAX_UNIT_BYTES, max(_PAGE, math.ceil(share / _PAGE) * _PAGE))


def _cut(tensor: int, offset: int, length: int, size: int, writer: int, source: int = 0) -> Iterator[Unit]:
    if size < 1:
        raise ValueError(f"units of {size} bytes")
    for at in range(0, length, size):
        n = min(size, length - at)
        yield Unit(tensor, offset + at, n, n, 1, writer, source + at)


def tile(extents: Sequence[Extent], file_size: int, world_size: int, unit_bytes: int) -> list[Unit]:
    """All units of a file in canonical order: tensors in their order, then metadata and gaps.

    Raises:
        ValueError: tensors overlap or reach past the end of the file.
    """
    return list(tiles(extents, file_size, world_size, unit_bytes))


def tiles(extents: Sequence[Extent], file_size: int, world_size: int, unit_bytes: int) -> Iterator[Unit]:
    """As `tile`, one by one."""
    rest = gaps([(e.offset, e.nbytes) for e in extents], file_size)
    total = sum(e.nbytes for e in extents if e.scope == "replicated")
    before = 0
    for index, extent in enumerate(extents):
        if extent.nbytes == 0:
            continue
        if extent.scope == "replicated":
            for unit in _cut(index, extent.offset, extent.nbytes, unit_bytes, 0):
                middle = before + unit.offset - extent.offset + unit.nbytes // 2
                yield replace(unit, writer=middle * world_size // total)
            before += extent.nbytes
        else:
            yield from _private_units(index, extent)
    for offset, length in rest:
        yield from _cut(-1, offset, length, MAX_UNIT_BYTES, 0)


def _private_units(index: int, extent: Extent) -> Iterator[Unit]:
    if extent.scope == "one-rank":
        yield from _cut(index, extent.offset, extent.nbytes, MAX_UNIT_BYTES, extent.owner)
    elif extent.scope == "per-rank":
        row = extent.nbytes // max(extent.shape[0], 1)
        for rank in range(extent.shape[0]):
            yield from _cut(index, extent.offset + rank * row, row, MAX_UNIT_BYTES, rank)
    else:
        for rank, block in enumerate(extent.blocks):
            yield from _block_units(index, extent, block, rank)


def _block_units(index: int, extent: Extent, block: Block, rank: int) -> Iterator[Unit]:
    """Runs of a block that are contiguous in the file, grouped into strided units of at most 4 MiB."""
    if math.prod(block.shape) == 0:
        return
    strides = _strides(extent.shape, extent.item_size)
    axis = len(block.shape)
    while axis > 0 and block.start[axis - 1] == 0 and block.shape[axis - 1] == extent.shape[axis - 1]:
        axis -= 1
    axis = max(axis - 1, 0)  # the last axis along which the block is cut: runs are contiguous from here on
    run = math.prod(block.shape[axis:]) * extent.item_size
    first = extent.offset + sum(s * n for s, n in zip(block.start, strides, strict=True))
    outer, inner = block.shape[: max(axis - 1, 0)], block.shape[axis - 1] if axis else 1
    stride = strides[axis - 1] if axis else run
    source = 0
    for place in itertools.product(*(range(n) for n in outer)):
        offset = first + sum(i * n for i, n in zip(place, strides, strict=False))
        yield from _strided(index, offset, run, stride, inner, rank, source)
        source += run * inner


def _strides(shape: Sequence[int], item_size: int) -> list[int]:
    strides = [item_size] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


def _strided(index: int, offset: int, run: int, stride: int, count: int, writer: int, source: int) -> Iterator[Unit]:
    if run == stride or count == 1:
        yield from _cut(index, offset, run * count, MAX_UNIT_BYTES, writer, source)
    elif run >= MAX_UNIT_BYTES:
        for i in range(count):
            yield from _cut(index, offset + i * stride, run, MAX_UNIT_BYTES, writer, source + i * run)
    else:
        group = MAX_UNIT_BYTES // run
        for i in range(0, count, group):
            yield Unit(index, offset + i * stride, run, stride, min(group, count - i), writer, source + i * run)


def gaps(extents: Sequence[tuple[int, int]], file_size: int) -> list[tuple[int, int]]:
    """The (offset, length) pieces of a file that belong to no tensor.

    Raises:
        ValueError: tensors overlap or reach past the end of the file.
    """
    result, position = [], 0
    for offset, length in sorted(e for e in extents if e[1]):
        if offset < position or offset + length > file_size:
            raise ValueError(f"the tensor at byte {offset} overlaps another one or leaves the file")
        if offset > position:
            result.append((position, offset - position))
        position = offset + length
    if position < file_size:
        result.append((position, file_size - position))
    return result


def check_extent(name: str, extent: Extent, file_size: int, world_size: int) -> None:
    """Refuse an extent that no save would have written.

    Raises:
        ValueError, SliceError: its scope, shape or ranks contradict each other.
    """
    if extent.scope not in ("replicated", "per-rank", "one-rank", "sliced"):
        raise ValueError(f"{name} has no scope {extent.scope!r}")
    if min(extent.shape, default=0) < 0 or extent.nbytes > file_size:
        raise ValueError(f"{name} of shape {extent.shape} does not fit into the file")
    if extent.scope == "per-rank" and extent.shape[0] != world_size:
        raise ValueError(f"{name} has {extent.shape[0]} rows for {world_size} ranks")
    if extent.scope == "one-rank" and not 0 <= extent.owner < world_size:
        raise ValueError(f"{name} belongs to rank {extent.owner} of {world_size}")
    if extent.scope == "sliced":
        if len(extent.blocks) != world_size:
            raise ValueError(f"{name} has {len(extent.blocks)} blocks of {world_size} ranks")
        check_blocks(name, extent.shape, extent.blocks)


def check_blocks(name: str, shape: Sequence[int], blocks: Sequence[Block]) -> None:
    """Refuse blocks that do not tile the global array of `shape` exactly.

    Raises:
        SliceError: a block leaves the array, two overlap, or a hole remains; ranks are named.
    """
    for rank, block in enumerate(blocks):
        check_inside(name, shape, block, f"rank {rank}")
    full = [(r, b) for r, b in enumerate(blocks) if math.prod(b.shape)]
    full.sort(key=lambda item: item[1].start)
    for i, (rank, block) in enumerate(full):
        for other_rank, other in full[i + 1 :]:
            if other.start and other.start[0] >= block.start[0] + block.shape[0]:
                break
            if _overlap(block, other):
                raise SliceError(f"the blocks of ranks {rank} and {other_rank} overlap", where=name)
    if sum(math.prod(b.shape) for b in blocks) != math.prod(shape):
        raise SliceError(f"the blocks of the {len(blocks)} ranks leave a hole in {tuple(shape)}", where=name)


def check_inside(name: str, shape: Sequence[int], block: Block, whose: str) -> None:
    """Refuse a block that does not lie in the global array of `shape`.

    Raises:
        SliceError: it has other axes, or leaves the array.
    """
    inside = len(block.start) == len(block.shape) == len(shape) and all(
        0 <= s and 0 <= n and s + n <= g for s, n, g in zip(block.start, block.shape, shape, strict=True)
    )
    if not inside:
        text = f"the block of {whose}, start {block.start} and shape {block.shape}"
        raise SliceError(f"{text}, leaves the global shape {tuple(shape)}", where=name)


def _overlap(a: Block, b: Block) -> bool:
    return all(s < t + m and t < s + n for s, n, t, m in zip(a.start, a.shape, b.start, b.shape, strict=True))
