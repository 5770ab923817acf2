"""What a run's directory tells about its history: committed names, where attempts started, the lineage.

Reads names, start records and, where a record is missing, manifests. Reads no tensor. The rule itself is in
`lineage`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpcresume.checkpoint import manifest
from hpcresume.checkpoint.attempts import Starts, read_starts
from hpcresume.checkpoint.lineage import lineage
from hpcresume.checkpoint.manifest import Sealed
from hpcresume.checkpoint.units import open_file, read_whole
from hpcresume.errors import CheckpointError, DamagedError, RunError
from hpcresume.io.paths import RunPaths, generation_name, parse_generation_name

__all__ = ["committed_names", "ever_committed", "lineage_names", "read_manifest", "read_sealed", "starts"]


def committed_names(run: RunPaths) -> list[str]:
    """Names of the committed generations, ascending by step and attempt; their content is not looked at."""
    return [generation_name(*pair) for pair in _committed(run)]


def _committed(run: RunPaths) -> list[tuple[int, int]]:
    if not run.generations.is_dir():
        return []
    found = (parse_generation_name(path.name) for path in run.generations.iterdir())
    return sorted(pair for pair in found if pair)


def lineage_names(run: RunPaths) -> list[str]:
    """Names of the generations in the lineage, newest first."""
    return lineage(_committed(run), starts(run).known)


def starts(run: RunPaths) -> Starts:
    """Where attempts began: as recorded, else as the manifests of what the attempt committed say.

    `damaged` holds those that matter and cannot be told: of attempts that committed, and of the newest one.
    """
    recorded = read_starts(run)
    committed = _committed(run)
    oldest = min((attempt for _, attempt in committed), default=0)
    known, lost = dict(recorded.known), set()
    for attempt in {attempt for _, attempt in committed} | recorded.damaged:
        if attempt in known or (attempt == oldest and attempt not in recorded.damaged):
            continue
        found, start = _start_by_parents(run, attempt, (step for step, by in committed if by == attempt))
        if found:
            known[attempt] = start
        elif attempt in recorded.damaged:
            lost.add(attempt)
    newest = max(run.attempt_numbers(), default=0)
    return Starts(known, frozenset(n for n in lost if n == newest or any(n == by for _, by in committed)))


def _start_by_parents(run: RunPaths, attempt: int, steps: Iterable[int]) -> tuple[bool, str | None]:
    """Whether a manifest of this attempt tells where it started, and from what."""
    for step in sorted(steps):
        try:
            parent = read_sealed(run.generation(step, attempt)).body.parent
        except (CheckpointError, RunError):
            continue
        parsed = parse_generation_name(parent) if parent else None
        if parsed is None or parsed[1] != attempt:
            return True, parent if parsed else None
    return False, None


def ever_committed(run: RunPaths) -> bool:
    """Should the lineage hold a generation? Orphans of attempts before a start from nothing do not count."""
    known = read_starts(run).known
    newest = max(known, default=0)
    if known.get(newest):
        return True
    marked = [number for number in run.attempt_numbers() if run.attempt(number).committed.exists()]
    return any(attempt >= newest for attempt in [*marked, *(by for _, by in _committed(run))])


def read_sealed(path: Path) -> Sealed:
    """The manifest of the generation at `path`.

    Raises:
        DamagedError: it is missing or does not match its digest, twice.
        FormatVersionError: another format version wrote it.
        RunDirectoryError: it cannot be opened for a reason that is no damage.
    """
    return read_manifest(path)[1]


def read_manifest(path: Path) -> tuple[bytes, Sealed]:
    """A manifest's bytes and what they say. Raises as `read_sealed`."""
    try:
        return _read_and_decode(path, past_cache=False)
    except DamagedError:
        return _read_and_decode(path, past_cache=True)  # a mismatch counts when a second read confirms it


def _read_and_decode(path: Path, *, past_cache: bool) -> tuple[bytes, Sealed]:
    with open_file(path / manifest.MANIFEST_NAME, path.name) as fd:
        data = read_whole(fd, path.name, past_cache=past_cache)
    return data, manifest.decode(data, path.name)
