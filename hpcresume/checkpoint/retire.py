"""Retiring what is no longer needed: renamed to a trash folder first, unlinked later. Rank 0 only."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Sequence

from hpcresume.checkpoint.attempts import newest_attempt
from hpcresume.checkpoint.history import committed_names, starts
from hpcresume.checkpoint.lineage import lineage
from hpcresume.errors import ConfigError
from hpcresume.io.durable import fsync_directory, make_directory, remove_tree
from hpcresume.io.files import files
from hpcresume.io.paths import RunPaths, parse_generation_name
from hpcresume.model import Emit, Event, ignore_events

__all__ = ["make_room", "retire", "sweep"]

_STAGING = re.compile(r"\.g\d{12}-a(\d{4,})\.partial-[0-9a-f]+")
_PROBE = re.compile(r"\.probe-\d+-[0-9a-f]+")


def retire(run: RunPaths, *, keep: int, attempt: int | None = None, emit: Emit = ignore_events) -> list[str]:
    """Retire old generations and return their names.

    Kept: the newest `keep` of the lineage, what the newest attempt started from, and every orphan that is not
    older (by step) than the oldest of these. Call it only after a commit. Nothing is retired while it cannot be told
    what an attempt of the lineage started from, nor on behalf of an `attempt` after which another one has begun.

    Raises:
        ConfigError: `keep` is less than 1.
        OSError: a generation could not be moved; those before it have been, and nothing was removed.
    """
    if keep < 1:
        raise ConfigError(f"keep is at least 1, not {keep}", where="keep")
    if attempt is not None and newest_attempt(run) > attempt:
        emit(Event("retire-refused", {"reason": "a newer attempt of the run has begun", "attempts": []}))
        return []
    retired = _superfluous(run, keep, emit)
    _to_trash(run, retired)
    if retired:
        emit(Event("retired", {"generations": retired}))
    _empty_trash(run)
    return retired


def make_room(run: RunPaths, *, keep: int, attempt: int, emit: Emit = ignore_events) -> list[str]:
    """For a save that failed for want of space: remove what `retire` would after a commit, and what failed saves and
    earlier removals left; return the names. No save may be under way.

    Raises:
        ConfigError, OSError: as `retire`.
    """
    before = [path.name for path in run.trash.iterdir()] if run.trash.is_dir() else []
    swept = sweep(run, attempt=attempt + 1, emit=emit)
    removed = [*swept, *retire(run, keep=keep, attempt=attempt, emit=emit)]
    gone = [name for name in before if not (run.trash / name).exists()]
    return [*removed, *gone]


def _superfluous(run: RunPaths, keep: int, emit: Emit) -> list[str]:
    begun = starts(run)
    if begun.damaged:
        emit(Event("retire-refused", {"reason": "start.json is damaged", "attempts": sorted(begun.damaged)}))
        return []
    names = {name: pair for name in committed_names(run) if (pair := parse_generation_name(name))}
    chain = lineage(names.values(), begun.known)
    kept = {*chain[:keep]} | {begun.known[n] for n in begun.known if n == max(begun.known)}
    oldest = min((names[name][0] for name in kept if name in names), default=0)
    return [name for name in names if name not in kept and (name in chain or names[name][0] < oldest)]


def sweep(run: RunPaths, *, attempt: int, emit: Emit = ignore_events) -> list[str]:
    """Remove staging directories and probe files that attempts before `attempt` left behind, and empty the trash.

    Raises:
        OSError: one could not be moved.
    """
    swept = []
    for path in run.generations.iterdir():
        match = _STAGING.fullmatch(path.name)
        if _PROBE.fullmatch(path.name) or (match and int(match[1]) < attempt):
            swept.append(path.name)
    _to_trash(run, swept)
    if swept:
        emit(Event("swept", {"staging": swept}))
    _empty_trash(run)
    return swept


def _to_trash(run: RunPaths, names: Sequence[str]) -> None:
    """Durably, so that no power cut brings back under its name what is then being removed."""
    if not names:
        return
    if not run.trash.is_dir():
        make_directory(run.trash)
    for name in names:
        files().rename(run.generations / name, run.trash / f"{name.lstrip('.')}-{secrets.token_hex(4)}")
    fsync_directory(run.trash)
    fsync_directory(run.generations)


def _empty_trash(run: RunPaths) -> None:
    """What cannot be removed now (a reader on another node, say) is removed next time."""
    if run.trash.is_dir():
        for path in list(run.trash.iterdir()):
            with contextlib.suppress(OSError):
                remove_tree(path)
