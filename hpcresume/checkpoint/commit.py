"""The last step of a save: the manifest, and the rename that makes a generation visible.

`commit` takes only Verified, so committing bytes that nobody read back is a type error; `commit_unproved` is the one
exception, for a save under a deadline, and the generation says so.
"""

from __future__ import annotations

import platform
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from hpcresume.checkpoint import attempts, manifest, readback
from hpcresume.checkpoint.manifest import FileEntry, Manifest
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.steps import DATA_FILE, Verified, Written, check_fence
from hpcresume.comm.vote import agree_bytes
from hpcresume.io.durable import fsync_directory, write_new_file
from hpcresume.io.files import files
from hpcresume.model import FORMAT_VERSION, Generation
from hpcresume.version import __version__

__all__ = ["commit", "commit_unproved", "is_poisoned"]

_poisoned: set[Path] = set()
"""Generations of this process whose directory could not be synced after the rename, and that could not be taken back.
Nobody knows whether they are there for good, and a second fsync that succeeds says nothing of what the first lost
(fsync(2); Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020)."""


def commit(verified: Verified) -> Generation:
    """Collective. Commit what was read back.

    Raises:
        SaveError: it was not committed, or not durably (FencedError when a newer attempt has begun).
    """
    return _publish(verified.written, verified.how)


def commit_unproved(written: Written) -> Generation:
    """Collective. Commit bytes that nobody read back; only a save that races a deadline asks for it.

    Raises:
        SaveError: as `commit`.
    """
    return _publish(written, "none")


def _publish(written: Written, read_back: str) -> Generation:
    """Step 6: manifest, directory, rename, parent; each durable before the next."""
    job, directory = written.staged.job, written.staged.directory
    final = job.run.generation(job.step, job.attempt)
    message = b""
    with together(job.ranks, "write the manifest"):
        if job.ranks.rank == 0:
            message = manifest.encode(_manifest(written, read_back))
            write_new_file(directory / manifest.MANIFEST_NAME, message)
            fsync_directory(directory)
    message = agree_bytes(job.ranks, message)
    with together(job.ranks, "read the manifest back"):
        if read_back != "none" and job.ranks.rank == readback.reader_of(0, job.ranks.nodes):
            readback.compare_whole(directory / manifest.MANIFEST_NAME, message)
    with together(job.ranks, "commit the generation"):
        if job.ranks.rank == 0:
            check_fence(job)
            _rename_for_good(directory, final)
            attempts.mark_committed(job.run, job.attempt)
    return manifest.decode(message, final.name).generation(job.run.root, final)


def is_poisoned(final: Path) -> bool:
    """Whether this process renamed a generation into this place and could not make that durable."""
    return final in _poisoned


def _rename_for_good(directory: Path, final: Path) -> None:
    """A generation whose rename could not be made durable is taken back: the next try writes a new one."""
    files().rename(directory, final)
    try:
        fsync_directory(final.parent)
    except OSError:
        _poisoned.add(final)
        files().rename(final, directory)
        _poisoned.discard(final)
        raise


def _manifest(written: Written, read_back: str) -> Manifest:
    staged, job = written.staged, written.staged.job
    per_tensor: dict[int, list[bytes]] = {i: [] for i in range(len(staged.entries))}
    for unit, digest in zip(staged.units, written.digests, strict=True):
        if unit.tensor >= 0:
            per_tensor[unit.tensor].append(digest)
    tensors = [
        msgspec.structs.replace(e, digest=manifest.tensor_digest(per_tensor[i])) for i, e in enumerate(staged.entries)
    ]
    units = b"".join(written.digests).hex()
    return Manifest(
        format_version=FORMAT_VERSION,
        run_id=job.run_id,
        step=job.step,
        attempt=job.attempt,
        parent=job.parent,
        world_size=job.ranks.size,
        created=datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds"),
        write_path=written.write_path,
        read_back=read_back,
        environment=_environment(),
        files=[FileEntry(DATA_FILE, staged.file_size, staged.unit_bytes, units, tensors)],
        structure=job.inventory.structure,
        leaves=job.inventory.leaves,
        rank_parts=job.inventory.rank_parts,
    )


def _environment() -> dict[str, str]:
    found = {"hpcresume": __version__, "python": platform.python_version(), "host": platform.node()}
    for name in ("numpy", "torch", "h5py", "mpi4py"):
        module = sys.modules.get(name)
        if module is not None:
            found[name] = str(getattr(module, "__version__", ""))
    return found
