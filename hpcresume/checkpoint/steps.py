"""The steps of a save that touch data: staged, written, verified. Each is voted on by all ranks.

Owns the staging directory and the data file in it. Knows neither the manifest nor the commit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from hpcresume.checkpoint import layout, readback
from hpcresume.checkpoint.digest import DIGEST_BYTES, Binding
from hpcresume.checkpoint.image import SparseImage
from hpcresume.checkpoint.inventory import Inventory
from hpcresume.checkpoint.layout import Unit
from hpcresume.checkpoint.manifest import TensorEntry
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.writers import SourceBytes, Writer
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import FencedError, NoSpaceError
from hpcresume.io.durable import pwrite_all
from hpcresume.io.files import files
from hpcresume.io.paths import RunPaths
from hpcresume.model import FORMAT_VERSION

__all__ = [
    "DATA_FILE",
    "Job",
    "SaveOptions",
    "Staged",
    "Verified",
    "Written",
    "check_fence",
    "stage",
    "verify",
    "write",
]

DATA_FILE = "state.h5"


@dataclass(frozen=True)
class SaveOptions:
    """How a generation is written.

    Attributes:
        write_path: auto (probe), mpiio or posix.
        read_back: all (every byte, by another rank than its writer), sample (one unit in 16), or none,
            which is for a save under a deadline only; the generation records it.
        compare_replicas: compare replicated tensors between ranks before they are shared out for writing.
    """

    write_path: str = "auto"
    read_back: str = "all"
    compare_replicas: bool = True


@dataclass(frozen=True)
class Job:
    """What every step needs and none changes."""

    run: RunPaths
    run_id: str
    step: int
    attempt: int
    parent: str | None
    inventory: Inventory
    ranks: Ranks
    options: SaveOptions

    @property
    def binding(self) -> Binding:
        """What the digests of the data file's units are bound to."""
        return Binding(self.run_id, self.step, self.attempt, DATA_FILE)


@dataclass(frozen=True)
class Staged:
    """A fresh directory with the HDF5 skeleton in it.

    `units` are the data file's, all ranks'; rank 0 keeps the skeleton's `image` for its digests.
    """

    job: Job
    directory: Path
    entries: list[TensorEntry]
    file_size: int
    unit_bytes: int
    units: list[Unit]
    image: SparseImage | None


@dataclass(frozen=True)
class Written:
    """All bytes are written and synced; `digests` are those of `staged.units`, in order."""

    staged: Staged
    digests: list[bytes]
    write_path: str


@dataclass(frozen=True)
class Verified:
    """Written, and read back equal: `how` says how much of it."""

    written: Written
    how: str


def stage(job: Job, directory: Path) -> Staged:
    """Steps 1 and 2: a fresh directory, the skeleton; offsets are broadcast, the rest every rank computes."""
    extents = [entry.extent() for entry in job.inventory.entries]
    message, image = b"", None
    with together(job.ranks, "stage the generation"):
        if job.ranks.rank == 0:
            check_fence(job)
            _check_space(job, sum(extent.nbytes for extent in extents))
            files().mkdir(directory)
            image, offsets, size = _make_skeleton(job, directory, extents)
            message = np.array([size, *offsets], dtype=np.int64).tobytes()
    size, *offsets = np.frombuffer(agree_bytes(job.ranks, message), dtype=np.int64).tolist()
    entries = [msgspec.structs.replace(e, offset=o) for e, o in zip(job.inventory.entries, offsets, strict=True)]
    replicated = sum(e.nbytes for e in extents if e.scope == "replicated")
    unit_bytes = layout.unit_bytes_for(replicated, job.ranks.size)
    with together(job.ranks, "lay out the units"):
        units = layout.tile([e.extent() for e in entries], size, job.ranks.size, unit_bytes)
    return Staged(job, directory, entries, size, unit_bytes, units, image)


def check_fence(job: Job) -> None:
    """Refuse to go on for an attempt that is no longer the newest claim.

    Raises:
        FencedError: a newer attempt has begun.
    """
    newest = max(job.run.attempt_numbers(), default=job.attempt)
    if newest > job.attempt:
        raise FencedError(
            f"attempt {newest} of this run has begun; attempt {job.attempt} may not commit any more",
            where=str(job.run.root),
            hint="let this attempt end; the newer one goes on",
        )


def _check_space(job: Job, nbytes: int) -> None:
    stats = os.statvfs(job.run.generations)
    free = stats.f_bavail * stats.f_frsize
    if 0 < stats.f_blocks and free < nbytes:
        raise NoSpaceError(
            f"the generation needs {nbytes} bytes, the filesystem has {free}",
            where=str(job.run.generations),
            hint="free space, lower keep=, or move the run",
        )


def _make_skeleton(job: Job, directory: Path, extents: Sequence[layout.Extent]) -> tuple[SparseImage, list[int], int]:
    """The skeleton, durable on disk with holes for the tensors; offsets of the datasets, and the size of the file."""
    from hpcresume.checkpoint.skeleton import create_skeleton

    image, offsets = create_skeleton(
        [(e.name, extent, e.aliases) for e, extent in zip(job.inventory.entries, extents, strict=True)],
        {"run_id": job.run_id, "step": job.step, "attempt": job.attempt, "format_version": FORMAT_VERSION},
    )
    end = max([image.size, *(o + e.nbytes for o, e in zip(offsets, extents, strict=True))])
    image.truncate(end)
    fd = files().open(directory / DATA_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for offset, data in image.pieces():
            pwrite_all(fd, memoryview(data), offset)
        files().truncate(fd, end)
        files().fsync(fd)
    finally:
        files().close(fd)
    return image, offsets, end


def write(staged: Staged, writer: Writer) -> Written:
    """Steps 3 and 4: tensors written, digested and synced by all ranks; rank 0 digests HDF5's own bytes."""
    job = staged.job
    path = staged.directory / DATA_FILE
    data_units = [unit for unit in staged.units if unit.tensor >= 0]
    mine = writer.write(path, data_units, SourceBytes(job.inventory.sources), job.binding, job.ranks)
    with together(job.ranks, "digest the metadata"):
        if staged.image is not None:
            rest = [unit for unit in staged.units if unit.tensor < 0]
            mine += [job.binding.digest(staged.image.read_at(u.offset, u.nbytes), u.offset) for u in rest]
    gathered = [iter(_split(text)) for text in job.ranks.allgather(b"".join(mine))]
    digests = [next(gathered[unit.writer]) for unit in staged.units]
    return Written(staged, digests, writer.name)


def _split(text: bytes) -> list[bytes]:
    return [text[i : i + DIGEST_BYTES] for i in range(0, len(text), DIGEST_BYTES)]


def verify(written: Written) -> Verified:
    """Step 5: another rank than the writer reads each unit back, past the page cache, and compares."""
    staged, how = written.staged, written.staged.job.options.read_back
    job = staged.job
    with together(job.ranks, "read the generation back"):
        pairs = list(zip(staged.units, written.digests, strict=True))
        mine = readback.assigned(pairs, job.ranks, sample=how == "sample")
        names = [entry.name for entry in staged.entries]
        readback.compare(staged.directory / DATA_FILE, staged.file_size, mine, job.binding, names)
    return Verified(written, how)
