"""What a submission leaves in the run directory: the script and the job's number; and who is at work there already."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.checkpoint.attempts import read_holder
from hpcresume.errors import RunBusyError, RunDirectoryError
from hpcresume.io.durable import make_directory, write_durably
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.submission import queue_states

__all__ = ["Folder", "live_job"]

States = Callable[[str], "tuple[str, ...] | None"]


@dataclass(frozen=True)
class Folder:
    """`RUN/submit/`: script.sbatch, job.json, and the lock that keeps two submissions apart."""

    root: Path

    @classmethod
    def of_run(cls, run: Path) -> Folder:
        """The folder of a run; made by `locked`."""
        return cls(run / "submit")

    @property
    def script(self) -> Path:
        """The script that was given to sbatch last (0600)."""
        return self.root / "script.sbatch"

    @property
    def job(self) -> Path:
        """The last job's number, and what it was made from (0600)."""
        return self.root / "job.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold its lock.

        Raises:
            RunBusyError: another submission of this run is under way.
            RunDirectoryError: the folder cannot be made.
        """
        try:
            make_directory(self.root)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            what = f"the run directory cannot be used: {error.strerror}"
            raise RunDirectoryError(what, where=str(error.filename or self.root)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            what = "another submission of this run is under way"
            raise RunBusyError(what, where=str(self.root), hint="wait for it") from error
        finally:
            os.close(lock)

    def write_script(self, text: str) -> None:
        """Keep the script that is about to be submitted."""
        write_durably(self.script, text.encode())

    def write_job(self, job_id: str, facts: dict[str, Any]) -> None:
        """Keep the number of the job, so that the next submission can ask whether it is over."""
        text = json.dumps({"job_id": job_id, "submitted_at": time.time(), **facts}, indent=1)
        write_durably(self.job, text.encode() + b"\n")

    def job_id(self) -> str | None:
        """The number of the last job, None when there was none."""
        try:
            found = json.loads(self.job.read_bytes())
        except (OSError, ValueError):
            return None
        return str(found["job_id"]) if isinstance(found, dict) and "job_id" in found else None


def live_job(run: Path, *, states: States = queue_states) -> str | None:
    """Who works on this run or waits to, in words; None when nobody does, as far as can be known."""
    submitted = Folder.of_run(run).job_id()
    paths = RunPaths(run.absolute())
    numbers = paths.attempt_numbers()
    holder = read_holder(paths, numbers[-1]) if numbers else None
    ids = dict.fromkeys(each for each in (submitted, holder.job_id if holder else None) if each is not None)
    for job_id in ids:
        found = states(job_id)
        if found:
            return f"job {job_id} ({', '.join(sorted(set(found)))})"
    if holder is not None and holder.holds and holder.job_id is None and holder.process_alive():
        return f"process {holder.pid} on this machine"
    return None
