"""The state tree again, from a generation: which bytes this rank needs, and what becomes of them. No vote here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcresume.checkpoint import arrays, layout, tree
from hpcresume.checkpoint.manifest import Sealed
from hpcresume.checkpoint.reader import Bytes, FileReader
from hpcresume.comm.ranks import Ranks
from hpcresume.errors import DamagedError, ModelChangedError
from hpcresume.model import EveryRank, GlobalSlice

__all__ = ["read_block", "read_state", "whole_tensor"]


def whole_tensor(reader: FileReader, index: int) -> Any:
    """A whole dataset as an array of its own kind."""
    extent = reader.extents[index]
    data = reader.read_range(index, 0, extent.nbytes)
    return arrays.new_array(extent.library, extent.dtype, extent.shape, data)


def _rank_row(reader: FileReader, index: int, rank: int) -> Any:
    extent = reader.extents[index]
    if extent.scope == "one-rank":
        return whole_tensor(reader, index)
    data = reader.read_rows(index, rank, rank + 1)
    return arrays.new_array(extent.library, extent.dtype, extent.shape[1:], data)


def read_block(reader: FileReader, index: int, start: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """The block of a dataset with global indices from start[i] to start[i] + shape[i] along axis i."""
    extent = reader.extents[index]
    if not extent.shape or 0 in shape:
        rows: Bytes = reader.read_range(index, 0, extent.nbytes if not extent.shape else 0)
        return arrays.new_array(extent.library, extent.dtype, shape, rows)
    rows = reader.read_rows(index, start[0], start[0] + shape[0])
    item = extent.item_size
    grid = rows.reshape(shape[0], *extent.shape[1:], item)
    inner = [slice(s, s + n) for s, n in zip(start[1:], shape[1:], strict=True)]
    cut = (slice(None), *inner)
    block = np.ascontiguousarray(grid[cut]).reshape(-1)
    return arrays.new_array(extent.library, extent.dtype, shape, block)


def _document(leaves: Any, index: Any, tensors: int) -> dict[str, Any]:
    """What the manifest says of a leaf: one of the keys value, tensor (the index of one of `tensors`) and local.

    Raises:
        DamagedError: it says none of these.
    """
    document = _at(leaves, index)
    if isinstance(document, dict):
        tensor = document.get("tensor")
        if "value" in document or "local" in document or (type(tensor) is int and 0 <= tensor < tensors):
            return document
    raise DamagedError(f"a leaf of the state cannot be decoded: {document!r:.80}")


def _at(items: Any, key: Any) -> Any:
    """`items[key]`, where only what is there counts: no negative index.

    Raises:
        DamagedError: there is no such item.
    """
    if isinstance(items, dict) and key in items:
        return items[key]
    if isinstance(items, list) and type(key) is int and 0 <= key < len(items):
        return items[key]
    raise DamagedError(f"the state in the manifest lacks {key!r:.60}")


class _Rebuilder:
    def __init__(self, sealed: Sealed, reader: FileReader, ranks: Ranks, slices: Mapping[str, GlobalSlice]) -> None:
        self.body = sealed.body
        self.reader = reader
        self.rank = ranks.rank
        self.same_world = ranks.size == sealed.body.world_size
        self.slices = slices
        self._tensors: dict[int, Any] = {}

    def leaf(self, index: int) -> Any:
        document = _document(self.body.leaves, index, len(self.reader.extents))
        if "value" in document:
            return tree.decode_plain(document["value"])
        if "local" in document:
            if self.same_world:
                return self.part(self.rank, index)
            return EveryRank(tuple(self.part(rank, index) for rank in range(self.body.world_size)))
        tensor = document["tensor"]
        if tensor not in self._tensors:
            self._tensors[tensor] = self.tensor(tensor)
        return self._tensors[tensor]

    def tensor(self, index: int) -> Any:
        name = self.body.files[0].tensors[index].name
        wanted = self.slices.get(name)
        if wanted is None:
            return whole_tensor(self.reader, index)
        extent = self.reader.extents[index]
        library, dtype, shape = arrays.describe(wanted.array)
        if (library, dtype, tuple(wanted.shape)) != (extent.library, extent.dtype, extent.shape):
            raise ModelChangedError(
                f"reshaped: {name} is a {extent.dtype} of global shape {extent.shape} in the generation, "
                f"here a {dtype} of {tuple(wanted.shape)}",
                where=name,
            )
        start = tuple(int(s) for s in wanted.start)
        layout.check_inside(name, extent.shape, layout.Block(start, shape), f"rank {self.rank}")
        return read_block(self.reader, index, start, shape)

    def part(self, rank: int, index: int) -> Any:
        document = _at(_at(self.body.rank_parts, rank), str(index))
        leaves = _at(document, "leaves")

        def leaf(i: int) -> Any:
            each = _document(leaves, i, len(self.reader.extents))
            if "value" in each:
                return tree.decode_plain(each["value"])
            return _rank_row(self.reader, each["tensor"], rank)

        return tree.unflatten(_at(document, "structure"), leaf)


def read_state(
    sealed: Sealed, directory: Path, ranks: Ranks, *, slices: Mapping[str, GlobalSlice], check: bool = True
) -> tuple[Any, int]:
    """This rank's state, and how many mismatches a second read did not confirm.

    With `check`, every unit of the generation is compared by some rank: those this rank reads, and of the
    others its share.

    Raises:
        DamagedError: a byte that this rank read, or was to check, is wrong or missing.
        ModelChangedError: a slice in `slices` is of another global array than the saved one.
        SliceError: a slice leaves it.
    """
    (file,) = sealed.body.files
    with FileReader(sealed, directory, file, check=check) as reader:
        rebuilder = _Rebuilder(sealed, reader, ranks, slices)
        state = tree.unflatten(sealed.body.structure, rebuilder.leaf)
        if check:
            for index in reader.unchecked(range(ranks.rank, len(reader.units), ranks.size)):
                reader.check(index)
        return state, reader.unconfirmed
