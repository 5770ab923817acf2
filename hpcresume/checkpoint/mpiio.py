"""The collective write path: `MPI.File.Write_at_all`. The only module of checkpoint/ that speaks MPI.

Units are gathered into a bounce buffer and written in rounds; every rank takes part in every round, also with
nothing to write and also after an error of its own, since a missing rank would hang the others.
MPI-IO's sync is not trusted for durability (HDF5's driver and OMPIO skip it at close): each rank fsyncs a
descriptor that it opened before writing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpcresume.checkpoint.digest import Binding
from hpcresume.checkpoint.layout import Unit
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.writers import SourceBytes, runs_of
from hpcresume.comm.ranks import Ranks
from hpcresume.errors import SaveError
from hpcresume.io.files import files

__all__ = ["MpiioWriter"]

ROUND_BYTES = 64 << 20
"""Bytes a rank writes per collective call: far below MPI's 2 GiB count limit, and bounds the extra memory."""
ROUND_RUNS = 1 << 16
"""Runs (pieces contiguous in the file) of a rank per collective call: bounds the description of narrow columns."""


@dataclass
class _Round:
    units: list[Unit] = field(default_factory=list)
    nbytes: int = 0
    runs: int = 0

    def has_room_for(self, unit: Unit) -> bool:
        return self.nbytes + unit.nbytes <= ROUND_BYTES and self.runs + unit.count <= ROUND_RUNS

    def add(self, unit: Unit) -> None:
        self.units.append(unit)
        self.nbytes += unit.nbytes
        self.runs += unit.count


def _rounds(units: Sequence[Unit], size: int) -> list[list[_Round]]:
    """Rounds of each rank. All ranks compute all of them, so that everybody knows the longest list."""
    every: list[list[_Round]] = [[] for _ in range(size)]
    for unit in sorted(units, key=lambda u: u.offset):
        mine = every[unit.writer]
        if not mine or not mine[-1].has_room_for(unit):
            mine.append(_Round())
        mine[-1].add(unit)
    return every


class MpiioWriter:
    """Collective writes through MPI-IO on the ranks' own communicator."""

    name = "mpiio"

    def write(
        self, path: Path, units: Sequence[Unit], sources: SourceBytes, binding: Binding, ranks: Ranks
    ) -> list[bytes]:
        """See `Writer.write`."""
        fd = -1
        try:
            with together(ranks, "open the file for MPI-IO"):
                fd = files().open(path, os.O_WRONLY)
            handle = _open(path, ranks)
            digests: dict[int, bytes] = {}
            with together(ranks, "write the tensors through MPI-IO") as outcome:
                outcome.error = _write_rounds(handle, units, sources, binding, ranks, digests)
            with together(ranks, "make the tensors durable"):
                files().fsync(fd)
        finally:
            if fd >= 0:
                with contextlib.suppress(OSError):  # what a close could tell, the fsync has told
                    files().close(fd)
        return [digests[unit.offset] for unit in units if unit.writer == ranks.rank]


def _open(path: Path, ranks: Ranks) -> Any:
    from mpi4py import MPI

    handle = None
    with together(ranks, "open the file for MPI-IO"):
        try:
            handle = MPI.File.Open(ranks.mpi(), str(path), MPI.MODE_WRONLY)
        except MPI.Exception as error:
            raise SaveError(f"MPI-IO cannot open the file: {error}", where=str(path)) from error
    return handle


def _write_rounds(
    handle: Any,
    units: Sequence[Unit],
    sources: SourceBytes,
    binding: Binding,
    ranks: Ranks,
    digests: dict[int, bytes],
) -> BaseException | None:
    """Take part in every round and in the closing; return this rank's first error instead of raising it."""
    from mpi4py import MPI

    every = _rounds(units, ranks.size)
    part = _Part(every[ranks.rank], sources, binding, digests)
    for i in range(max(len(rounds) for rounds in every)):
        kind, data = part.prepare(i)
        try:
            handle.Set_view(0, MPI.BYTE, kind or MPI.BYTE, "native")
            handle.Write_at_all(0, [data, MPI.BYTE])
        except MPI.Exception as caught:
            part.error = part.error or SaveError(f"a collective write failed: {caught}")
        if kind is not None:
            kind.Free()
    try:
        handle.Close()
    except MPI.Exception as caught:
        part.error = part.error or SaveError(f"MPI-IO could not close the file: {caught}")
    return part.error


class _Part:
    """This rank's part of the rounds. After its first error it has nothing more to write, and still takes part."""

    def __init__(
        self, rounds: Sequence[_Round], sources: SourceBytes, binding: Binding, digests: dict[int, bytes]
    ) -> None:
        self.error: BaseException | None = None
        self._rounds = rounds
        self._sources = sources
        self._binding = binding
        self._digests = digests
        self._buffer = np.empty(0, dtype=np.uint8)

    def prepare(self, i: int) -> tuple[Any, Any]:
        """Where the bytes of round i go (an MPI datatype, None when there are none), and the bytes."""
        if i < len(self._rounds) and self.error is None:
            try:
                return _file_type(self._rounds[i]), self._filled(self._rounds[i])
            except Exception as caught:  # noqa: BLE001 - kept, so that this rank still joins every round
                self.error = caught
        return None, self._buffer[:0]

    def _filled(self, current: _Round) -> Any:
        if len(self._buffer) < current.nbytes:
            self._buffer = np.empty(max(r.nbytes for r in self._rounds), dtype=np.uint8)
        position = 0
        for unit in current.units:
            data = self._sources.of(unit)
            self._digests[unit.offset] = self._binding.digest(data, unit.offset)
            self._buffer[position : position + unit.nbytes] = data
            position += unit.nbytes
        return self._buffer[:position]


def _file_type(current: _Round) -> Any:
    from mpi4py import MPI

    runs = [(offset, unit.run) for unit in current.units for offset, _ in runs_of(unit)]
    kind = MPI.BYTE.Create_hindexed([length for _, length in runs], [offset for offset, _ in runs])
    kind.Commit()
    return kind
