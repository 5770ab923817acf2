"""Which write path this filesystem and MPI can be trusted with, found out by trying, with a read-back.

MPI-IO is preferred where it is collective and right; anything else (an error, wrong bytes, no MPI) means posix.
See docs/decisions for why nothing is assumed: OMPIO and ROMIO have corrupted data on some filesystems.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcresume.checkpoint.digest import Binding
from hpcresume.checkpoint.layout import Unit
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.writers import PosixWriter, SourceBytes, Writer
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import ConfigError, HpcresumeError
from hpcresume.io.durable import pread_exactly
from hpcresume.io.files import files
from hpcresume.model import Emit, Event

__all__ = ["WRITE_PATHS", "choose_writer"]

WRITE_PATHS = ("auto", "mpiio", "posix")
_PIECE = 8192
"""Bytes a rank writes in the probe, in two interleaved pieces so that shared pages and stripes are tried."""

Bytes = npt.NDArray[np.uint8]

_probed: dict[tuple[int, int], str] = {}
"""Answers of this process, by device of the run directory and world size."""


def choose_writer(directory: Path, wish: str, ranks: Ranks, emit: Emit) -> Writer:
    """Collective. The writer for generations under `directory`.

    `wish` is auto, mpiio or posix; auto probes once a process.

    Raises:
        ConfigError: mpiio is asked for where ranks are not MPI's.
        SaveError: mpiio is asked for and fails the probe.
    """
    if ranks.mpi() is None:
        if wish == "mpiio":
            raise ConfigError(
                f"MPI-IO needs MPI ranks, these are {ranks.backend}'s",
                where="write_path",
                hint="write_path='posix'",
            )
        return PosixWriter()
    if wish == "posix":
        return PosixWriter()
    name = _probed_name(directory, wish, ranks, emit)
    if name == "mpiio":
        from hpcresume.checkpoint.mpiio import MpiioWriter

        return MpiioWriter()
    return PosixWriter()


def _probed_name(directory: Path, wish: str, ranks: Ranks, emit: Emit) -> str:
    device = 0
    with together(ranks, "look at the filesystem"):
        device = directory.stat().st_dev
    key = (device, ranks.size)
    # Ranks may have probed in other company before, so what rank 0 remembers counts for all.
    known = agree_bytes(ranks, _probed.get(key, "").encode()).decode()
    if known and wish in ("auto", known):
        return known
    try:
        _probe_mpiio(directory, ranks)
    except HpcresumeError as error:
        if wish == "mpiio":
            raise
        emit(Event("write-path", {"chosen": "posix", "reason": str(error)}))
        _probed[key] = "posix"
    else:
        emit(Event("write-path", {"chosen": "mpiio", "reason": "collective write and read-back agree"}))
        _probed[key] = "mpiio"
    return _probed[key]


def _probe_mpiio(directory: Path, ranks: Ranks) -> None:
    """Collective. Write interleaved pieces through MPI-IO, and let the next rank read each back."""
    from hpcresume.checkpoint.mpiio import MpiioWriter

    name = agree_bytes(ranks, f".probe-{os.getpid()}-{secrets.token_hex(4)}".encode()).decode()
    path = directory / name
    half = _PIECE // 2
    units = [Unit(r, r * half, half, ranks.size * half, 2, r, 0) for r in range(ranks.size)]
    try:
        with together(ranks, "create the probe file"):
            if ranks.rank == 0:
                files().close(files().open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        sources = SourceBytes({ranks.rank: _pattern(ranks.rank)})
        MpiioWriter().write(path, units, sources, Binding("probe", 0, 0, name), ranks)
        with together(ranks, "read the probe file back"):
            _check(path, units[(ranks.rank + 1) % ranks.size])
    finally:
        ranks.barrier()
        if ranks.rank == 0:
            with contextlib.suppress(OSError):  # swept by the next attempt
                files().unlink(path)


def _pattern(rank: int) -> Bytes:
    numbers = np.arange(_PIECE, dtype=np.uint8)
    pattern: Bytes = numbers ^ np.uint8(rank % 251 + 1)
    return pattern


def _check(path: Path, unit: Unit) -> None:
    expected = _pattern(unit.writer)
    fd = files().open(path, os.O_RDONLY)
    try:
        for i in range(unit.count):
            got = np.empty(unit.run, dtype=np.uint8)
            read = pread_exactly(fd, got.data, unit.offset + i * unit.stride)
            if read != unit.run or not np.array_equal(got, expected[i * unit.run : (i + 1) * unit.run]):
                raise OSError(5, f"rank {unit.writer} wrote bytes that came back different", str(path))
    finally:
        files().close(fd)
