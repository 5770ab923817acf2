"""Finding the newest generation that verifies, together: candidates, votes, fallback with its reason.

Rank 0 reads names and manifests and broadcasts them, so that all ranks judge the same ones whatever their
node's caches show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcresume.checkpoint import attempts, manifest
from hpcresume.checkpoint.history import ever_committed, lineage_names, read_manifest
from hpcresume.checkpoint.manifest import Sealed
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.rebuild import read_state
from hpcresume.checkpoint.run import run_id
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import CheckpointError, DamagedError, NoUsableGenerationError, StorageAwayError
from hpcresume.io.hints import hint_for
from hpcresume.io.paths import RunPaths
from hpcresume.io.wholeness import refusal
from hpcresume.model import Emit, Event, Generation, GlobalSlice, Skipped, ignore_events

__all__ = ["Restored", "load_newest", "load_one", "none_usable", "restore_newest"]


@dataclass(frozen=True)
class Restored:
    """What was restored: no generation and no state when nothing was ever committed."""

    generation: Generation | None
    state: Any
    skipped: tuple[Skipped, ...]


def load_one(
    run: RunPaths,
    path: Path,
    ranks: Ranks,
    *,
    slices: Mapping[str, GlobalSlice] | None = None,
    identity: str | None = None,
    check: bool = True,
    emit: Emit = ignore_events,
) -> tuple[Generation, Any]:
    """Collective. The state of one generation, on every rank its own.

    `identity` is the id of the run that it must belong to, None when any will do.

    Raises:
        DamagedError: on all ranks alike, with the first damage that any rank found.
        FormatVersionError: the generation was written by another format version.
        RunDirectoryError: some rank could not open a file for a reason that is no damage.
    """
    sealed = _read_manifest(path, ranks)
    if identity is not None:
        sealed.check_run(identity, path.name)
    state, damage, unconfirmed = None, b"", 0
    with together(ranks, f"load {path.name}", CheckpointError):
        try:
            state, unconfirmed = read_state(sealed, path, ranks, slices=slices or {}, check=check)
        except DamagedError as error:
            damage = _encode(error)
    for each in ranks.allgather(damage):
        if each:
            raise _decode(each)
    if unconfirmed:
        emit(Event("unconfirmed-mismatch", {"generation": path.name, "count": unconfirmed}))
    return sealed.generation(run.root, path), state


def _read_manifest(path: Path, ranks: Ranks) -> Sealed:
    data, damage = b"", b""
    with together(ranks, f"read the manifest of {path.name}", CheckpointError):
        if ranks.rank == 0:
            try:
                data, _ = read_manifest(path)
            except DamagedError as error:
                damage = _encode(error)
    damage = agree_bytes(ranks, damage)
    if damage:
        raise _decode(damage)
    return manifest.decode(agree_bytes(ranks, data), path.name)


def _encode(error: DamagedError) -> bytes:
    facts = [error.what, error.where, error.hint, error.generation, error.tensor, error.offset]
    return json.dumps(facts).encode()


def _decode(text: bytes) -> DamagedError:
    what, where, hint, generation, tensor, offset = json.loads(text)
    return DamagedError(what, where=where, hint=hint, generation=generation, tensor=tensor, offset=offset)


def load_newest(
    run: RunPaths,
    ranks: Ranks,
    *,
    slices: Mapping[str, GlobalSlice] | None = None,
    check: bool = True,
    emit: Emit = ignore_events,
    confirm: Callable[[DamagedError], None] = lambda _: None,
) -> Restored:
    """Collective. The newest generation of the lineage that verifies, falling back along it.

    `confirm` is called, on all ranks alike, before one is given up, and may raise instead.

    Raises:
        NoUsableGenerationError: some were committed and none verifies.
        StorageAwayError: the storage does not answer.
    """
    identity = run_id(run, ranks)
    candidates, existed = _candidates(run, ranks)
    skipped: list[Skipped] = []
    for name in candidates:
        try:
            path = run.generations / name
            generation, state = load_one(run, path, ranks, slices=slices, identity=identity, check=check, emit=emit)
        except DamagedError as error:
            confirm(error)
            skipped.append(Skipped(name, error.what, error.tensor, error.offset))
            emit(Event("skipped", asdict(skipped[-1])))
            continue
        return Restored(generation, state, tuple(skipped))
    if existed:
        raise none_usable(run, skipped)
    return Restored(None, None, ())


def _candidates(run: RunPaths, ranks: Ranks) -> tuple[list[str], bool]:
    """Names to try, newest first, and whether there should be any."""
    text = b""
    with together(ranks, "list the generations", CheckpointError):
        if ranks.rank == 0:
            text = json.dumps([lineage_names(run), ever_committed(run)]).encode()
    names, existed = json.loads(agree_bytes(ranks, text))
    return names, existed


def none_usable(run: RunPaths, skipped: Sequence[Skipped] = ()) -> NoUsableGenerationError:
    """The refusal of a run that has committed something of which nothing can be restored."""
    reasons = "; ".join(f"{s.generation}: {s.reason}" for s in skipped) or "they are gone"
    hint = "repair the storage or restore a backup; to start from nothing, use a new run directory"
    copies = [s.generation for s in skipped if s.reason.endswith(manifest.MISPLACED)]
    if copies:
        hint = f"remove {' and '.join(copies)} from generations/: no more than a copy was put there; else {hint}"
    what = f"generations were committed and none can be restored: {reasons}"
    return NoUsableGenerationError(what, where=str(run.root), hint=hint)


def restore_newest(
    run: RunPaths,
    *,
    attempt: int,
    ranks: Ranks,
    slices: Mapping[str, GlobalSlice] | None = None,
    emit: Emit = ignore_events,
) -> Restored:
    """Collective. As `load_newest`, and record durably what this attempt starts from.

    From then on a skipped generation is out of the lineage, so that no later attempt tries it again. So none is skipped
    while the filesystem as a whole does not work: what is missing then may be back tomorrow.

    Raises:
        NoUsableGenerationError, StorageAwayError: as `load_newest`.
    """
    restored = load_newest(run, ranks, slices=slices, emit=emit, confirm=lambda damage: _is_damage(run, ranks, damage))
    with together(ranks, "record the start of the attempt", CheckpointError):
        if ranks.rank == 0:
            name = restored.generation.name if restored.generation else None
            attempts.record_start(run, attempt, name, restored.skipped)
    return restored


def _is_damage(run: RunPaths, ranks: Ranks, damage: DamagedError) -> None:
    """Collective. Rank 0 looks whether the filesystem works."""
    with together(ranks, "look at the filesystem", CheckpointError):
        refused = refusal(run.generations) if ranks.rank == 0 else None
        if refused is not None:
            raise StorageAwayError(
                f"{damage.what}, and the filesystem does not work as a whole: {refused.strerror or refused}",
                where=damage.where,
                hint=hint_for(refused.errno),
            )
