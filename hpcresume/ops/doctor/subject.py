"""What is to be looked at: a run with its measurements and its job, a folder, or just this place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.checkpoint.places import run_path
from hpcresume.checkpoint.run import read_run
from hpcresume.errors import HpcresumeError, SlurmError
from hpcresume.io.paths import RunPaths
from hpcresume.ops.doctor.measured import measure_run
from hpcresume.ops.doctor.timing import Measured
from hpcresume.ops.overview import is_run, overview
from hpcresume.ops.submitted import read_submission
from hpcresume.ops.targets import typed
from hpcresume.slurm.accounting import warning_of_job
from hpcresume.slurm.batch_script import asked_warning
from hpcresume.slurm.commands import show_job
from hpcresume.slurm.queue import QueuedJob
from hpcresume.submit.record import Folder

__all__ = ["Subject", "the_subject"]


@dataclass(frozen=True)
class Subject:
    """What a path means, and what is known of it.

    Attributes:
        path: as it was given; the working folder when nothing was.
        run: the run, None for a folder.
        measured: of the run.
        job: the run's job, None when it has none in the queue.
        requeueable: may that be requeued? None when not known.
        lead: seconds of its `--signal`, None when there is none or it is not known.
        partition: the one that is meant: as given, else the job's; None for the default one.
    """

    path: Path
    run: RunPaths | None = None
    measured: Measured = field(default_factory=Measured)
    job: QueuedJob | None = None
    requeueable: bool | None = None
    lead: float | None = None
    partition: str | None = None


def the_subject(given: str | None, partition: str | None) -> Subject:
    """Find out what is meant. Slurm that does not answer leaves what it would have told unknown.

    Raises:
        ConfigError: the path is empty.
        RunError: the run cannot be read.
    """
    path = Path.cwd() if given is None else run_path(given)
    run = RunPaths(path)
    with typed(run):
        if not path.is_dir() or not is_run(path):
            return Subject(path, partition=partition)
        if run.run_json.is_file():
            read_run(run)
        measured = measure_run(run)
    job = overview([path]).rows[0].job
    job = job if job is not None and not job.over else None
    return Subject(
        path=path,
        run=run,
        measured=measured,
        job=job,
        requeueable=_requeueable(job),
        lead=_lead(run, job),
        partition=partition or (job.partition.partition(",")[0] if job is not None else None) or None,
    )


def _requeueable(job: QueuedJob | None) -> bool | None:
    if job is None:
        return None
    try:
        return show_job(job.id).requeueable
    except SlurmError:
        return None


def _lead(run: RunPaths, job: QueuedJob | None) -> float | None:
    try:
        asked = warning_of_job(job.id) if job is not None else asked_warning(_submitted_script(run))
    except (HpcresumeError, OSError):
        return None
    return asked.lead if asked is not None else None


def _submitted_script(run: RunPaths) -> str:
    submission = read_submission(run.root)
    return Folder.of_run(submission.run).script.read_text() if submission is not None else ""
