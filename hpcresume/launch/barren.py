"""Starts whose ranks ended before any of them claimed an attempt.

No attempt's ledger can hold them, and a job whose ranks never come up (a node that cannot start tasks, say) would
be requeued for ever. Owns one small file: in the run when it is known, else, or when the run cannot be written, in the
user's state directory, which the nodes of a cluster usually share.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from hpcresume.io.durable import append_line, make_directory
from hpcresume.io.paths import RunPaths
from hpcresume.launch.journal import say
from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import PastAttempt
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["barren_starts", "note_barren_start", "with_barren_starts"]


FORGOTTEN = 90 * 86400.0
"""Seconds after which a line is of an older job: their numbers begin anew (MaxJobId, slurm.conf(5))."""


@dataclass(frozen=True)
class _Barren:
    """A barren start: which of its job's it was, and the newest attempt of the run then (None: the run unknown)."""

    job_id: str
    restart: int
    after: int | None
    start: PastAttempt


def barren_starts(run: Path | None, slurm: SlurmEnvironment) -> tuple[PastAttempt, ...]:
    """The starts of this job right before this one that claimed no attempt, the newest last."""
    found = {each.restart: each.start for each in _read(run, slurm) if each.job_id == slurm.job_id}
    newest_first = []
    restart = slurm.restart_count - 1
    while restart in found:
        newest_first.append(found[restart])
        restart -= 1
    return tuple(reversed(newest_first))


def with_barren_starts(
    past: Sequence[PastAttempt], run: Path | None, slurm: SlurmEnvironment
) -> tuple[PastAttempt, ...]:
    """The run's attempts with its jobs' barren starts between them, in order: a budget counts both.

    A start that follows one after which the run was held is a person's doing: nothing else lets a held job start.
    """
    placed = [each for each in _read(run, slurm) if each.after is not None]
    merged: list[PastAttempt] = [each.start for each in placed if each.after == 0]
    for attempt in past:
        merged += [attempt, *(each.start for each in placed if each.after == attempt.attempt)]
    for index in range(1, len(merged)):
        before = merged[index - 1]
        if before.attempt == 0 and before.decided == Decision.HOLD.value:
            merged[index] = replace(merged[index], released=True)
    return tuple(merged)


def note_barren_start(run: Path | None, slurm: SlurmEnvironment, start: PastAttempt) -> bool:
    """Record durably that this start claimed no attempt. Outside Slurm nothing restarts by itself, nor is noted.

    False when it could be written nowhere.
    """
    if slurm.job_id is None:
        return True
    facts = {"t": time.time(), "job_id": slurm.job_id, "restart": slurm.restart_count, "cause": start.cause.value,
             "after": _newest(run), "memory": start.memory, "decided": start.decided, "kept": start.kept}  # fmt: skip
    for path in _files(run, slurm):
        try:
            make_directory(path.parent)
            append_line(path, facts)
        except OSError as error:
            say(f"this start cannot be counted in {path.parent}: {error}")
        else:
            return True
    return False


def _read(run: Path | None, slurm: SlurmEnvironment) -> list[_Barren]:
    """All that stand in the run's file, or in the job's; in order."""
    found: dict[tuple[str, int], _Barren] = {}
    for path in _files(run, slurm):
        lines: list[str] = []
        with contextlib.suppress(OSError, ValueError):
            lines = path.read_text().splitlines()
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                facts = json.loads(line)
                if time.time() - float(facts["t"]) < FORGOTTEN:
                    each = _as_barren(facts)
                    found[each.job_id, each.restart] = each
    return list(found.values())


def _as_barren(facts: Mapping[str, Any]) -> _Barren:
    after = facts.get("after")
    start = PastAttempt(
        0,
        Cause(facts["cause"]),
        decided=str(facts.get("decided") or ""),
        memory=facts.get("memory") is True,
        kept=facts.get("kept") is True,
    )
    return _Barren(str(facts["job_id"]), int(facts["restart"]), after if isinstance(after, int) else None, start)


def _newest(run: Path | None) -> int | None:
    if run is None:
        return None
    try:
        return max(RunPaths(run).attempt_numbers(), default=0)
    except OSError:
        return None


def _files(run: Path | None, slurm: SlurmEnvironment) -> list[Path]:
    """Where to look, and to write in the first that can be written.

    A user's clusters may share their home, and each gives the numbers of jobs anew: the run, or where the job was
    submitted, tells its starts from those of another job with its number.
    """
    which = [slurm.cluster, run.absolute()] if run is not None else [slurm.cluster, slurm.submit_dir, slurm.job_name]
    mark = hashlib.blake2b("\0".join(map(str, which)).encode(errors="surrogateescape"), digest_size=6).hexdigest()
    elsewhere = user_state_path("hpcresume") / "jobs" / f"barren-starts-{slurm.job_id}-{mark}.jsonl"
    return [run / "launch" / "barren-starts.jsonl", elsewhere] if run is not None and _is_run(run) else [elsewhere]


def _is_run(run: Path) -> bool:
    try:
        return RunPaths(run).run_json.exists()
    except OSError:
        return False
