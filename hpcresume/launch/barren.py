"""Starts whose ranks ended before any of them claimed an attempt, counted over the restarts of a job.

No attempt's ledger can hold them, and a job whose ranks never come up (a node that cannot start tasks, say) would
be requeued for ever. Owns one small file: in the run when it is known, else in the user's state directory,
which the nodes of a cluster usually share.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from platformdirs import user_state_path

from hpcresume.io.durable import make_directory
from hpcresume.io.paths import RunPaths
from hpcresume.launch.journal import append_line, say
from hpcresume.model import Cause
from hpcresume.policy.budgets import PastAttempt
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["barren_starts", "note_barren_start"]


def barren_starts(run: Path | None, slurm: SlurmEnvironment) -> tuple[PastAttempt, ...]:
    """The starts of this job right before this one that claimed no attempt, the newest last."""
    found: dict[int, Cause] = {}
    try:
        lines = _file(run, slurm).read_text().splitlines()
    except OSError:
        return ()
    for line in lines:
        try:
            facts = json.loads(line)
            if facts["job_id"] == slurm.job_id:
                found[int(facts["restart"])] = Cause(facts["cause"])
        except (ValueError, KeyError, TypeError):
            continue
    newest_first = []
    restart = slurm.restart_count - 1
    while restart in found:
        newest_first.append(PastAttempt(0, found[restart], None))
        restart -= 1
    return tuple(reversed(newest_first))


def note_barren_start(run: Path | None, slurm: SlurmEnvironment, cause: Cause) -> None:
    """Record durably that this start claimed no attempt. Outside Slurm nothing restarts by itself, nor is noted."""
    if slurm.job_id is None:
        return
    path = _file(run, slurm)
    facts = {"t": time.time(), "job_id": slurm.job_id, "restart": slurm.restart_count, "cause": cause.value}
    try:
        make_directory(path.parent)
        append_line(path, facts)
    except OSError as error:
        say(f"this start cannot be counted: {error}")


def _file(run: Path | None, slurm: SlurmEnvironment) -> Path:
    if run is not None and RunPaths(run).run_json.exists():
        return run / "launch" / "barren-starts.jsonl"
    return user_state_path("hpcresume") / "jobs" / f"barren-starts-{slurm.job_id}.jsonl"
