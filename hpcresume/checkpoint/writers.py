"""The seam between what is written and how: one protocol, two paths (`posix` here, `mpiio` in its own module).

A writer puts this rank's units at their offsets, digests them on the way, and makes them durable through a
descriptor that was opened before the first write. It knows nothing of manifests or commits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hpcresume.checkpoint.arrays import FlatBytes
from hpcresume.checkpoint.digest import Binding
from hpcresume.checkpoint.layout import Unit
from hpcresume.checkpoint.phases import together
from hpcresume.comm.ranks import Ranks
from hpcresume.io.durable import pwrite_all
from hpcresume.io.files import files

__all__ = ["PosixWriter", "SourceBytes", "Writer", "runs_of"]

Bytes = npt.NDArray[np.uint8]


class SourceBytes:
    """This rank's bytes for its units; keeps the packed form of one tensor at a time."""

    def __init__(self, sources: Mapping[int, Any]) -> None:
        self._sources = sources
        self._current: tuple[int, FlatBytes] | None = None

    def of(self, unit: Unit) -> Bytes:
        """The bytes of a unit that this rank writes."""
        if self._current is None or self._current[0] != unit.tensor:
            self._current = (unit.tensor, FlatBytes(self._sources[unit.tensor]))
        return self._current[1].read(unit.source, unit.nbytes)


def runs_of(unit: Unit) -> Iterator[tuple[int, int]]:
    """(offset in the file, position in the unit) of each run of a unit."""
    for i in range(unit.count):
        yield unit.offset + i * unit.stride, i * unit.run


class Writer(Protocol):
    """Writes the units of all ranks into one existing file."""

    name: str

    def write(
        self, path: Path, units: Sequence[Unit], sources: SourceBytes, binding: Binding, ranks: Ranks
    ) -> list[bytes]:
        """Collective. Write this rank's part of `units` (all ranks' data units), fsync, and vote.

        Returns the digests of this rank's units in order.

        Raises:
            SaveError: a write or fsync failed on some rank (NoSpaceError when the filesystem is full).
        """


class PosixWriter:
    """pwrite(2) at offsets, each rank by itself: works on every filesystem and with every backend."""

    name = "posix"

    def write(
        self, path: Path, units: Sequence[Unit], sources: SourceBytes, binding: Binding, ranks: Ranks
    ) -> list[bytes]:
        """See `Writer.write`."""
        digests: list[bytes] = []
        with together(ranks, "write the tensors"):
            mine = [unit for unit in units if unit.writer == ranks.rank]
            if mine:
                digests = self._write_mine(path, mine, sources, binding)
        return digests

    def _write_mine(self, path: Path, mine: Sequence[Unit], sources: SourceBytes, binding: Binding) -> list[bytes]:
        digests = []
        fd = files().open(path, os.O_WRONLY)
        try:
            for unit in mine:
                data = sources.of(unit)
                digests.append(binding.digest(data, unit.offset))
                view = data.data
                for offset, at in runs_of(unit):
                    pwrite_all(fd, view[at : at + unit.run], offset)
            files().fsync(fd)
        finally:
            files().close(fd)
        return digests
