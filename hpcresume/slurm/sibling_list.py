"""The list of a run's other jobs in the queue: lines that are only ever added, so that no node overwrites another's.

`launch/siblings.jsonl` in the run. What cannot be read counts as absent; what cannot be written is said.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.console import tell
from hpcresume.io.durable import append_line, make_directory

__all__ = [
    "BEHIND",
    "GUARD",
    "Sibling",
    "Siblings",
    "can_note",
    "guard_words",
    "note_ended",
    "note_gone",
    "note_waiting",
    "read_siblings",
    "told_behind",
]

BEHIND = "HPCRESUME_BEHIND"
"""Tells a job that we submitted what it is for: "guard:123"."""
GUARD = "guard"


@dataclass(frozen=True)
class Sibling:
    """A job of this run that we submitted: `why`, and the job `of` the run that it stands behind."""

    job_id: str
    why: str
    of: str


@dataclass(frozen=True)
class Siblings:
    """Those that may still be waiting; and the starts (job, restart count) that ended as was decided."""

    waiting: tuple[Sibling, ...] = ()
    ended: frozenset[tuple[str, int]] = frozenset()


def guard_words(of: str) -> list[str]:
    """Sbatch's options for a job that goes on when the job `of` ends without having been able to say why."""
    return [f"--dependency=afternotok:{of}", "--kill-on-invalid-dep=yes"]


def told_behind(export: str, why: str, of: str) -> str:
    """Sbatch's --export by which a job is told what it is for, beside what it gets anyway (`export`)."""
    told = f"{BEHIND}={why}:{of}"
    return f"--export={told}" if export in ("NONE", "NIL") else f"--export={export or 'ALL'},{told}"


def read_siblings(run: Path) -> Siblings:
    """What the list says, as far as it can be read."""
    try:
        lines = _file(run).read_bytes().split(b"\n")
    except OSError:
        return Siblings()
    waiting: dict[str, Sibling] = {}
    ended = set()
    for line in lines:
        try:
            match json.loads(line):
                case {"waiting": [str(job_id), str(why), str(of)]}:
                    waiting[job_id] = Sibling(job_id, why, of)
                case {"gone": str(job_id)}:
                    waiting.pop(job_id, None)
                case {"ended": [str(job_id), int(restart)]}:
                    ended.add((job_id, restart))
        except (ValueError, RecursionError):
            continue
    return Siblings(tuple(waiting.values()), frozenset(ended))


def can_note(run: Path, why: str, of: str) -> bool:
    """Can the list be written, tried by a line that says what is about to be submitted? Where it cannot, nothing may
    be: jobs that nobody knows of would each submit others.
    """
    return _append(run, {"about": [why, of]})


def note_waiting(run: Path, sibling: Sibling) -> None:
    """A job was submitted."""
    _append(run, {"waiting": [sibling.job_id, sibling.why, sibling.of]})


def note_gone(run: Path, job_id: str) -> None:
    """A job will not start any more."""
    _append(run, {"gone": job_id})


def note_ended(run: Path, job_id: str, restart: int) -> None:
    """This start of the job ends as was decided, and the job does not come back."""
    _append(run, {"ended": [job_id, restart]})


def _append(run: Path, line: dict[str, Any]) -> bool:
    if not run.is_dir():
        return False
    try:
        make_directory(run / "launch")
        append_line(_file(run), {"t": time.time(), **line})
    except OSError as error:
        tell(f"hpcresume: the list of the run's other jobs cannot be written: {error}")
        return False
    return True


def _file(run: Path) -> Path:
    return run / "launch" / "siblings.jsonl"
