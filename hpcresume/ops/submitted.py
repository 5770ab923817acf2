"""What `hpcresume submit` left of the job of a run: its number, its folder, what it was made from.

Knows that the tasks of an array have runs of their own beside one submission: RUN-3 is task 3 of what RUN/submit tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcresume.observe.lines import read_json_object
from hpcresume.slurm.filenames import known_file_name
from hpcresume.slurm.queue import is_job_id
from hpcresume.submit.record import Folder

__all__ = ["Submission", "has_submission", "log_of_job", "read_submission", "submitted_log"]

_TASK = re.compile(r"(.+)-([0-9]{1,9})")


@dataclass(frozen=True)
class Submission:
    """A job that was submitted.

    Attributes:
        run: the directory in which the submission is recorded: the run's, or the stem of an array's.
        job_id: as Slurm takes it for this run: `123`, or `120_3` for the run of a task.
        at: when, seconds since the epoch.
        task: the number of the array's task, None for any other job.
        directory: where it was submitted from, None when that was not recorded.
        options: further options for sbatch.
        spec: what it was made from, as plain values.
        stage: the name of the stage of a chain that it is, "" for any other job.
    """

    run: Path
    job_id: str
    at: float
    task: int | None = None
    directory: Path | None = None
    options: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    stage: str = ""

    @property
    def array(self) -> bool:
        """Is it a whole array, whose tasks have runs of their own?"""
        return self.task is None and _array(self.spec) is not None


def has_submission(run: Path) -> bool:
    """Whether something was submitted for the run at this very path."""
    return Folder.of_run(run).job.is_file()


def read_submission(run: Path) -> Submission | None:
    """The last submission of a run, None when there is none to be read.

    Raises:
        OSError: it is there and cannot be read.
    """
    own = _read(run, None)
    if own is not None:
        return own
    match = _TASK.fullmatch(run.name)
    stem = _read(run.with_name(match[1]), int(match[2])) if match else None
    return stem if stem is not None and _array(stem.spec) is not None else None


def _read(run: Path, task: int | None) -> Submission | None:
    facts = read_json_object(Folder.of_run(run).job)
    job_id, at, directory = str(facts.get("job_id", "")), facts.get("submitted_at"), facts.get("directory")
    if not is_job_id(job_id):
        return None
    options, spec, own, stage = (facts.get(key) for key in ("options", "spec", "task", "stage"))
    if isinstance(own, int):  # one task of an array, submitted again by itself
        task = own
    elif task is not None:
        job_id = f"{job_id}_{task}"
    return Submission(
        run=run,
        job_id=job_id,
        at=float(at) if isinstance(at, int | float) else 0.0,
        task=task,
        directory=Path(directory) if isinstance(directory, str) else None,
        options=tuple(map(str, options)) if isinstance(options, list) else (),
        spec=spec if isinstance(spec, dict) else {},
        stage=stage if isinstance(stage, str) else "",
    )


def _array(spec: Mapping[str, Any]) -> str | None:
    resources = spec.get("resources")
    found = resources.get("array") if isinstance(resources, dict) else None
    return str(found) if found is not None else None


def submitted_log(submission: Submission) -> Path | None:
    """Where sbatch was told to put the job's output (sbatch(1), FILENAME PATTERN); None when that cannot be known."""
    if submission.spec.get("function") is not None or submission.directory is None:
        return None
    pattern = submission.spec.get("log") or ("slurm-%A_%a.out" if "_" in submission.job_id else "slurm-%j.out")
    named = log_of_job(str(pattern), submission.job_id, str(submission.spec.get("name", "")))
    return None if named is None else submission.directory / named


def log_of_job(pattern: str, job_id: str, name: str | None = None) -> Path | None:
    """The log of a job whose --output was `pattern`; None when its number and its name do not tell.

    The task of an array has a number of its own besides, which nobody has written down.
    """
    number, _, task = job_id.partition("_")
    known = {"A": number, **({"a": task} if task else {"j": number}), **({"x": name} if name is not None else {})}
    named = known_file_name(pattern, known)
    return None if named is None else Path(named)
