"""What `hr.submit` leaves in a run, so that `hpcresume status`, `cancel`, `requeue` and `watch` know its job."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.console import tell
from hpcresume.io.durable import make_directory
from hpcresume.submit.record import Folder
from hpcresume.submit.submitit_jobs import Request, importable_name

__all__ = ["record_submission"]


def record_submission(request: Request, run: str, job_id: str, *, task: int | None = None) -> None:
    """Keep the number of a job and what it was made from. Never raises: the job is in the queue by now.

    Args:
        request: what was wished.
        run: the run that this job is for.
        job_id: its number, `123` or `123_4`.
        task: its number among the tasks of an array, None for any other job.
    """
    folder = Folder.of_run(Path(run))
    spec = msgspec.to_builtins(request.spec) | {"run": request.run, "function": importable_name(request.function)}
    facts: dict[str, Any] = {"spec": spec, "options": []}
    if task is not None:
        facts["task"] = task
    arguments = {"args": list(request.args), "kwargs": dict(request.kwargs)}
    if task is None and spec["function"] is not None and _is_plain(arguments):
        # `hpcresume requeue` submits again where it finds a folder: only what another process can build as it was.
        spec |= arguments
        facts["directory"] = os.getcwd()
    try:
        make_directory(folder.root)
        folder.write_job(job_id, facts)
    except OSError as error:
        reason = error.strerror or str(error)
        tell(f"hpcresume: {folder.job} cannot be written ({reason}): hpcresume status will not know of job {job_id}")


def _is_plain(value: object) -> bool:
    """Does it come back from JSON as it was?"""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
