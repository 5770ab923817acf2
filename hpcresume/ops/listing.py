"""The generations of a run as a person wants to see them: newest, in the lineage, orphaned or damaged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from hpcresume.checkpoint.generations import lineage_names
from hpcresume.io.paths import RunPaths, parse_generation_name
from hpcresume.model import Generation, Skipped
from hpcresume.observe.facts import read_facts
from hpcresume.ops.targets import Target, typed

__all__ = ["Listed", "as_json", "list_generations", "unreadable"]


@dataclass(frozen=True)
class Listed:
    """One generation. `mark` is newest, lineage, orphan or damaged; sizes are None when the manifest is bad.

    `age` is in seconds since it was committed; `reason` says why it is damaged or what an orphan is.
    """

    name: str
    step: int
    attempt: int
    mark: str
    reason: str = ""
    created: str = ""
    age: float | None = None
    nbytes: int | None = None
    world_size: int | None = None
    read_back: str | None = None
    write_path: str | None = None
    parent: str | None = None


def list_generations(target: Target, *, now: float | None = None) -> list[Listed]:
    """The generations of the target, ascending by step and attempt.

    Raises:
        RunError: there is no run, it cannot be read, or it has another format version.
        NoUsableGenerationError: the run has committed something, and nothing is left of it.
    """
    now = time.time() if now is None else now
    generations = target.generations
    with typed(target.run):
        if target.generation is None:
            generations.check_not_lost()
    good, damaged = generations.scan()
    whole = {generation.name: generation for generation in good}
    bad = {skipped.generation: skipped.reason for skipped in damaged}
    known_bad = {s.generation: _found(s) for s in _skipped(target.run)} | bad
    chain = [name for name in lineage_names(target.run) if name not in bad]
    return [_listed(name, whole.get(name), known_bad, chain, now) for name in target.names()]


def unreadable(target: Target) -> list[str]:
    """What cannot be read of the run's attempts, one line each; the generations may be whole all the same."""
    lines = []
    for number in target.run.attempt_numbers():
        try:
            read_facts(target.run, number)
        except OSError as error:
            lines.append(f"attempt {number} cannot be read: {error.strerror} ({error.filename})")
    return lines


def _skipped(run: RunPaths) -> Iterator[Skipped]:
    """What restores found bad, as far as the attempts can be read."""
    for number in run.attempt_numbers():
        with contextlib.suppress(OSError):
            yield from read_facts(run, number).skipped


def _found(skipped: Skipped) -> str:
    place = f", byte {skipped.offset}" if skipped.offset >= 0 else ""
    return f"a restore found it damaged: {skipped.reason}{place}"


def _listed(name: str, generation: Generation | None, bad: dict[str, str], chain: list[str], now: float) -> Listed:
    mark, reason = _mark(name, bad, chain)
    if generation is None:
        step, attempt = parse_generation_name(name) or (0, 0)
        return Listed(name, step, attempt, mark, reason)
    return Listed(
        name=name,
        step=generation.step,
        attempt=generation.attempt,
        mark=mark,
        reason=reason,
        created=generation.created,
        age=_age(generation.created, now),
        nbytes=generation.nbytes,
        world_size=generation.world_size,
        read_back=generation.read_back,
        write_path=generation.write_path,
        parent=generation.parent,
    )


def _mark(name: str, bad: dict[str, str], chain: list[str]) -> tuple[str, str]:
    if name in bad:
        return "damaged", bad[name]
    if name in chain:
        return ("newest" if name == chain[0] else "lineage"), ""
    return "orphan", "committed after a newer attempt had begun from an older generation"


def _age(created: str, now: float) -> float | None:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return None
    return now - (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def as_json(target: Target, listed: list[Listed]) -> dict[str, Any]:
    """The object that `hpcresume ls --json` prints; its keys are documented in the verb's help."""
    return {
        "run": str(target.run.root),
        "done": target.run.done.exists(),
        "warnings": unreadable(target),
        "generations": [
            {
                "name": each.name,
                "step": each.step,
                "attempt": each.attempt,
                "mark": each.mark,
                "reason": each.reason,
                "created": each.created,
                "age_seconds": each.age,
                "bytes": each.nbytes,
                "world_size": each.world_size,
                "read_back": each.read_back,
                "write_path": each.write_path,
                "parent": each.parent,
                "path": str(target.run.generations / each.name),
            }
            for each in listed
        ],
    }
