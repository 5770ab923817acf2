"""What a submission leaves in the run directory: the script and the job's number; and who is at work there already."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.checkpoint.attempts import Holder, read_holder
from hpcresume.errors import RunBusyError, RunDirectoryError, SlurmError
from hpcresume.io.durable import make_directory, write_durably
from hpcresume.io.hints import hint_for
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.queue import ask_queue
from hpcresume.slurm.submission import queue_states

__all__ = ["AtWork", "Folder", "at_work", "jobs_of", "states_at_once"]

States = Callable[[str], "tuple[str, ...] | None"]

_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK})
"""What flock says on a filesystem without locks: Lustre mounted without them, NFS without a lock daemon (flock(2))."""


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

    @property
    def chain(self) -> Path:
        """The stages that the run has instead of a job of its own (0600)."""
        return self.root / "chain.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Make the folder and hold its lock; False where the filesystem knows no locks, and nothing is held.

        Raises:
            RunBusyError: another submission of this run is under way.
            RunDirectoryError: the folder cannot be made or locked.
        """
        try:
            make_directory(self.root)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            what = f"the run directory cannot be used: {error.strerror}"
            raise RunDirectoryError(what, where=str(error.filename or self.root)) from error
        try:
            held = self._lock(lock)
            yield held
        finally:
            os.close(lock)

    def _lock(self, lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what = "another submission of this run is under way"
            raise RunBusyError(what, where=str(self.root), hint="wait for it") from error
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            what = f"the run directory cannot be locked: {error.strerror}"
            raise RunDirectoryError(what, where=str(self.root), hint=hint_for(error.errno)) from error
        return True

    def write_script(self, text: str) -> None:
        """Keep the script that is about to be submitted."""
        write_durably(self.script, text.encode())

    def write_job(self, job_id: str, facts: dict[str, Any]) -> None:
        """Keep the number of the job, so that the next submission can ask whether it is over."""
        text = json.dumps({"job_id": job_id, "submitted_at": time.time(), **facts}, indent=1)
        write_durably(self.job, text.encode() + b"\n")

    def write_chain(self, facts: dict[str, Any]) -> None:
        """Keep what the stages are, so that those which are not done can be submitted again."""
        text = json.dumps({"submitted_at": time.time(), **facts}, indent=1)
        write_durably(self.chain, text.encode() + b"\n")

    def job_id(self) -> str | None:
        """The number of the last job, None when there was none."""
        try:
            found = json.loads(self.job.read_bytes())
        except (OSError, ValueError):
            return None
        return str(found["job_id"]) if isinstance(found, dict) and "job_id" in found else None


@dataclass(frozen=True)
class AtWork:
    """Who works on a run or waits to: `who` in words, None for nobody; `unknown`: jobs that Slurm says nothing of."""

    who: str | None = None
    unknown: tuple[str, ...] = ()


def at_work(run: Path, *, states: States = queue_states) -> AtWork:
    """Who works on this run or waits to, as far as can be known."""
    holder = _holder(run)
    answers = {job_id: states(job_id) for job_id in jobs_of(run)}
    for job_id, found in answers.items():
        if found:
            return AtWork(f"job {job_id} ({', '.join(sorted(set(found)))})")
    if holder is not None and holder.holds and holder.job_id is None and holder.process_alive():
        return AtWork(f"process {holder.pid} on this machine")
    return AtWork(unknown=tuple(job_id for job_id, found in answers.items() if found is None))


def jobs_of(run: Path) -> list[str]:
    """The jobs that the run's files name: the one that was submitted last, and the one of the newest attempt."""
    holder = _holder(run)
    named = (Folder.of_run(run).job_id(), holder.job_id if holder is not None else None)
    return list(dict.fromkeys(each for each in named if each is not None))


def states_at_once(job_ids: Sequence[str]) -> States:
    """As `queue_states`, for any number of jobs by one squeue; it answers for these jobs and no others."""
    try:
        found = ask_queue(job_ids)
    except SlurmError:
        return lambda _job_id: None

    def states(job_id: str) -> tuple[str, ...]:
        tasks = [found[job_id]] if job_id in found else [j for i, j in found.items() if i.startswith(f"{job_id}_")]
        return tuple(job.state for job in tasks if not job.over or job.state == "PREEMPTED")  # which may come back

    return states


def _holder(run: Path) -> Holder | None:
    paths = RunPaths(run.absolute())
    numbers = paths.attempt_numbers()
    return read_holder(paths, numbers[-1]) if numbers else None
