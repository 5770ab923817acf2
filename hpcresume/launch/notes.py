"""What one supervisor leaves to the next beside the attempts: suspect nodes, and a user's comment on the job.

One small file, `launch/notes.json` in the run. Losing it costs an exclusion or a comment; so what cannot be read counts
as absent, and what cannot be written is said.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.io.durable import make_directory, write_durably
from hpcresume.launch.journal import say
from hpcresume.policy.suspects import Suspect

__all__ = ["MARK", "Notes", "read_notes", "write_notes"]

MARK = "hpcresume: "
"""What our comments on a job begin with."""


@dataclass(frozen=True)
class Notes:
    """All of it.

    Attributes:
        suspects: nodes that were lost under the run.
        job_id: the job that `excluded` and `comment` are about.
        excluded: what we, not the user, had Slurm exclude for that job.
        comment: the user's own comment on that job, before ours; None while it has not been touched.
    """

    suspects: tuple[Suspect, ...] = ()
    job_id: str | None = None
    excluded: tuple[str, ...] = ()
    comment: str | None = None


def read_notes(run: Path | None) -> Notes:
    """The notes of a run; empty without a run or a readable file."""
    if run is None:
        return Notes()
    try:
        facts = json.loads(_file(run).read_bytes())
    except (OSError, ValueError, RecursionError):
        return Notes()
    return _as_notes(facts) if isinstance(facts, dict) else Notes()


def write_notes(run: Path | None, notes: Notes) -> None:
    """Keep them durably. Never raises: the run matters more."""
    if run is None or not run.is_dir():
        return
    facts = {
        "suspects": [[each.node, each.at, each.times] for each in notes.suspects],
        "job_id": notes.job_id,
        "excluded": list(notes.excluded),
        "comment": notes.comment,
    }
    try:
        make_directory(run / "launch")
        write_durably(_file(run), json.dumps(facts).encode() + b"\n")
    except OSError as error:
        say(f"what the next start should know cannot be written: {error}")


def _file(run: Path) -> Path:
    return run / "launch" / "notes.json"


def _as_notes(facts: Mapping[str, Any]) -> Notes:
    suspects = []
    for each in _list(facts.get("suspects")):
        with contextlib.suppress(ValueError, TypeError):
            node, at, times = each
            suspects.append(Suspect(str(node), float(at), int(times)))
    job_id, comment = facts.get("job_id"), facts.get("comment")
    return Notes(
        suspects=tuple(suspects),
        job_id=job_id if isinstance(job_id, str) else None,
        excluded=tuple(each for each in _list(facts.get("excluded")) if isinstance(each, str)),
        comment=comment if isinstance(comment, str) else None,
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
