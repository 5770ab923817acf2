"""Reading back what was just written, by another rank than its writer, and comparing it with the digests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpcresume.checkpoint.digest import Binding
from hpcresume.checkpoint.layout import Unit
from hpcresume.checkpoint.units import read_unit
from hpcresume.comm.ranks import Ranks
from hpcresume.errors import SaveError
from hpcresume.io.durable import pread_exactly
from hpcresume.io.files import files

__all__ = ["assigned", "compare", "compare_whole", "reader_of"]

_HINT = "check the storage; this save is discarded, the next one writes afresh"
SAMPLE_EVERY = 16
"""Of a sampled read-back: one unit in 16, the first of each tensor included."""


def reader_of(writer: int, nodes: Sequence[int]) -> int:
    """The rank that reads back what `writer` wrote: the nearest following one on another node, else the next."""
    size = len(nodes)
    for distance in range(1, size):
        other = (writer + distance) % size
        if nodes[other] != nodes[writer]:
            return other
    return (writer + 1) % size


def assigned(pairs: Sequence[tuple[Unit, bytes]], ranks: Ranks, *, sample: bool) -> list[tuple[Unit, bytes]]:
    """This rank's part of the units (with digests) to read back."""
    readers = [reader_of(writer, ranks.nodes) for writer in range(ranks.size)]
    mine = [pair for pair in pairs if readers[pair[0].writer] == ranks.rank]
    if not sample:
        return mine
    seen: set[int] = set()
    chosen = []
    for i, pair in enumerate(mine):
        if pair[0].tensor not in seen or i % SAMPLE_EVERY == 0:
            chosen.append(pair)
        seen.add(pair[0].tensor)
    return chosen


def compare(path: Path, size: int, pairs: Sequence[tuple[Unit, bytes]], binding: Binding, names: Sequence[str]) -> None:
    """Read units past the page cache and compare; the file must have `size` bytes.

    Raises:
        SaveError: a unit came back different, with the tensor's name and the offset; or the size is another one.
        OSError: a read failed.
    """
    fd = files().open(path, os.O_RDONLY)
    try:
        found = os.fstat(fd).st_size
        if found != size:
            raise SaveError(f"the file came back with {found} bytes, not {size}", where=path.name, hint=_HINT)
        files().drop_cache(fd, 0, size)
        for unit, digest in pairs:
            data = read_unit(fd, unit)
            if data is None or binding.digest(data, unit.offset) != digest:
                name = names[unit.tensor] if unit.tensor >= 0 else "HDF5 metadata"
                raise SaveError(
                    f"{name} came back different from what rank {unit.writer} wrote",
                    where=f"{path.name}, byte {unit.offset}",
                    hint=_HINT,
                )
    finally:
        files().close(fd)


def compare_whole(path: Path, expected: bytes) -> None:
    """Read a small file past the page cache and compare.

    Raises:
        SaveError: it came back different.
        OSError: it cannot be read.
    """
    fd = files().open(path, os.O_RDONLY)
    try:
        data = bytearray(len(expected) + 1)
        files().drop_cache(fd, 0, len(data))
        if data[: pread_exactly(fd, memoryview(data), 0)] != expected:
            raise SaveError("the file came back different from what was written", where=path.name, hint=_HINT)
    finally:
        files().close(fd)
