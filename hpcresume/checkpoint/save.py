"""Saving one generation: the commit protocol as a whole, each step voted on by all ranks.

Staged → Written → Verified → Generation; the steps are in `steps` and `commit`. Owns what comes before them (arguments,
an existing generation of the same step) and after a failure.
"""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.checkpoint import history, manifest, readback
from hpcresume.checkpoint.commit import commit, commit_unproved, is_poisoned
from hpcresume.checkpoint.digest import DIGEST_BYTES
from hpcresume.checkpoint.inventory import take_inventory
from hpcresume.checkpoint.manifest import FileEntry, Manifest, Sealed
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.probe import WRITE_PATHS, choose_writer
from hpcresume.checkpoint.run import run_id
from hpcresume.checkpoint.steps import DATA_FILE, Job, SaveOptions, stage, verify, write
from hpcresume.checkpoint.writers import SourceBytes
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import (
    ConfigError,
    DamagedError,
    GenerationConflictError,
    HpcresumeError,
    NonFiniteError,
    SaveError,
    UsageError,
)
from hpcresume.io.durable import fsync_directory, remove_tree
from hpcresume.io.paths import RunPaths
from hpcresume.model import Emit, Event, Generation, ignore_events

__all__ = ["DATA_FILE", "SaveOptions", "agree_on_step", "find_equal", "save_generation"]


_DEFAULTS = SaveOptions()


def save_generation(
    run: RunPaths,
    state: Any,
    *,
    step: int,
    attempt: int,
    parent: str | None,
    ranks: Ranks,
    options: SaveOptions = _DEFAULTS,
    emit: Emit = ignore_events,
) -> Generation:
    """Collective. Write, prove and commit one generation.

    Saving the same step, attempt and content again returns the existing generation.

    Raises:
        StateError: the state cannot be saved.
        UsageError: ranks call with different steps, attempts or options.
        SaveError: it was not committed (NoSpaceError, GenerationConflictError, FencedError); on all ranks, naming
            the rank that failed. Older generations are untouched.
    """
    _agree_on_arguments(step, attempt, options, ranks)
    inventory = take_inventory(state, ranks, emit, compare_replicas=options.compare_replicas)
    job = Job(run, run_id(run, ranks), step, attempt, parent, inventory, ranks, options)
    existing = _existing(job)
    if existing is not None:
        return _same_or_conflict(job, existing)
    writer = choose_writer(run.generations, options.write_path, ranks, emit)
    directory = run.staging(step, attempt, agree_bytes(ranks, secrets.token_hex(6).encode()).decode())
    try:
        written = write(stage(job, directory), writer)
        if options.read_back == "none":
            return commit_unproved(written)
        return commit(verify(written))
    except HpcresumeError:
        _discard(directory, ranks, emit)
        raise


def find_equal(run: RunPaths, state: Any, *, step: int, attempt: int, ranks: Ranks) -> Generation | None:
    """Collective. The committed generation of this step and attempt if it holds this very state and is whole.

    Raises:
        StateError: the state cannot be saved.
        SaveError: a file cannot be read.
    """
    options = _DEFAULTS
    inventory = take_inventory(state, ranks, ignore_events, compare_replicas=options.compare_replicas)
    job = Job(run, run_id(run, ranks), step, attempt, None, inventory, ranks, options)
    try:
        existing = _existing(job)
        return None if existing is None else _same_or_conflict(job, existing)
    except GenerationConflictError:
        return None


def agree_on_step(step: int, ranks: Ranks) -> None:
    """Collective. Refuse what is no step, and ranks that name different ones, before anything is written.

    Raises:
        ConfigError: it is no whole number from 0.
        UsageError: ranks save different steps.
    """
    with together(ranks, "check the arguments"):
        _check_step(step)
    _all_alike(f"step {step}", ranks)


def _check_step(step: int) -> None:
    if type(step) is int and 0 <= step < 10**12:
        return
    kind = NonFiniteError if isinstance(step, float) and not math.isfinite(step) else ConfigError
    what = f"a step is a whole number from 0 to 999999999999, not {step!r:.60}"
    raise kind(what, where="step", hint="step=120")


def _agree_on_arguments(step: int, attempt: int, options: SaveOptions, ranks: Ranks) -> None:
    """Digests are bound to step and attempt, and each option changes which collectives follow."""
    with together(ranks, "check the arguments"):
        _check_step(step)
        if options.read_back not in ("all", "sample", "none"):
            hint = "all, sample or none"
            raise ConfigError(f"no read_back {options.read_back!r}", where="read_back", hint=hint)
        if options.write_path not in WRITE_PATHS:
            hint = ", ".join(WRITE_PATHS)
            raise ConfigError(f"no write path {options.write_path!r}", where="write_path", hint=hint)
    _all_alike(f"step {step} of attempt {attempt}, {options}", ranks)


def _all_alike(text: str, ranks: Ranks) -> None:
    texts = ranks.allgather(text.encode())
    odd = next((rank for rank, text in enumerate(texts) if text != texts[0]), None)
    if odd is not None:
        raise UsageError(
            f"rank 0 saves {texts[0].decode()}, rank {odd} saves {texts[odd].decode()}",
            where=f"rank {odd}",
            hint="call save on all ranks at the same step",
        )


def _existing(job: Job) -> Sealed | None:
    """Collective. The committed generation of this step and attempt, if there is one."""
    path = job.run.generation(job.step, job.attempt)
    data = b""
    with together(job.ranks, "look for the generation"):
        if job.ranks.rank == 0 and path.exists():
            data = _manifest_of_existing(job, path)
            if is_poisoned(path):
                raise _conflict(job, "but its last sync failed, and none can be trusted after that")
            fsync_directory(path.parent)  # the process that made it may have died before it got there
    data = agree_bytes(job.ranks, data)
    return manifest.decode(data, path.name) if data else None


def _manifest_of_existing(job: Job, path: Path) -> bytes:
    try:
        data, sealed = history.read_manifest(path)
        sealed.check_run(job.run_id, path.name)
    except DamagedError as error:
        raise _conflict(job, f"but is damaged: {error.what}") from error
    return data


def _conflict(job: Job, how: str) -> GenerationConflictError:
    return GenerationConflictError(
        f"step {job.step} of attempt {job.attempt} is committed already, {how}",
        where=str(job.run.generation(job.step, job.attempt)),
        hint="save under another step, or into another run directory",
    )


def _same_or_conflict(job: Job, existing: Sealed) -> Generation:
    """Collective. The existing generation when its content is ours, told by digesting ours for its places."""
    body, ours = existing.body, job.inventory
    (file,) = body.files
    placed = [msgspec.structs.replace(entry, offset=0, digest="") for entry in file.tensors]
    with together(job.ranks, "compare with the existing generation"):
        mine = _text(ours.structure, ours.leaves, ours.rank_parts, ours.entries, job.ranks.size)
        theirs = _text(body.structure, body.leaves, body.rank_parts, placed, body.world_size)
        if mine != theirs or not _digests_match(job, body, file):
            raise _conflict(job, "with other content")
    with together(job.ranks, "read the existing generation back"):
        _prove(job, body, file)
    return existing.generation(job.run.root, job.run.generation(job.step, job.attempt))


def _prove(job: Job, body: Manifest, file: FileEntry) -> None:
    """Returning it acknowledges it, so its bytes are read as those of a new one would be."""
    digests = bytes.fromhex(file.units)
    width = DIGEST_BYTES
    pairs = [(unit, digests[i * width : (i + 1) * width]) for i, unit in enumerate(body.units(file))]
    mine = readback.assigned(pairs, job.ranks, sample=job.options.read_back != "all")
    path = job.run.generation(job.step, job.attempt) / file.name
    try:
        readback.compare(path, file.size, mine, job.binding, [entry.name for entry in file.tensors])
    except FileNotFoundError as error:
        raise _conflict(job, f"but is damaged: {file.name} is missing") from error
    except SaveError as error:
        raise _conflict(job, f"but is damaged: {error.what}") from error


def _text(*parts: Any) -> str:
    """JSON tells 1 from 1.0 and true, and 0.0 from -0.0; comparing the values would not."""
    return json.dumps(msgspec.to_builtins(parts))


def _digests_match(job: Job, body: Manifest, file: FileEntry) -> bool:
    sources = SourceBytes(job.inventory.sources)
    width = 2 * DIGEST_BYTES
    return all(
        job.binding.digest(sources.of(unit), unit.offset).hex() == file.units[i * width : (i + 1) * width]
        for i, unit in enumerate(body.units(file))
        if unit.tensor >= 0 and unit.writer == job.ranks.rank
    )


def _discard(directory: Path, ranks: Ranks, emit: Emit) -> None:
    """Rank 0 removes what a failed save left; what cannot be removed is swept by the next attempt."""
    if ranks.rank != 0:
        return
    try:
        if directory.exists():
            remove_tree(directory)
    except OSError as error:
        emit(Event("staging-left", {"path": directory.name, "error": str(error)}))
