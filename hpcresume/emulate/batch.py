"""Starts a job's batch script as slurmd does: own copy of it, files for its output, its variables, a session."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from hpcresume.emulate.jobs import Job
from hpcresume.emulate.variables import SLURM_CONF
from hpcresume.slurm.filenames import file_name

__all__ = ["BatchError", "exit_status", "keep_script", "note", "start_batch"]

_RETRIES = 50
"""Times an exec is tried again that fails because another fork holds the script open for writing (ETXTBSY)."""


class BatchError(Exception):
    """The batch script could not be started; the text is what slurmd logs, `code` the job's exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def keep_script(job: Job, spool: Path) -> Path:
    """Keep the script as it was submitted (0700): what happens to the user's file later changes nothing."""
    folder = spool / f"job{job.number:05d}"
    path = folder / "slurm_script"
    data = os.fsencode(job.request.script)
    try:
        folder.mkdir(mode=0o700)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return path


def start_batch(job: Job, environ: Mapping[str, str], *, append: bool) -> subprocess.Popen[bytes]:
    """Run the job's own copy of its script, standard streams as its options say.

    `append` counts for a job that does not say whether a restart appends to its logs (JobFileAppend).

    Raises:
        BatchError: an output file cannot be opened, or the interpreter is missing.
    """
    assert job.spool is not None
    truncate = not (append if job.request.append is None else job.request.append)
    with contextlib.ExitStack() as files:
        out = files.enter_context(_open_log(job.output(), truncate, job))
        same = job.error() == job.output()
        error = out if same else files.enter_context(_open_log(job.error(), truncate, job))
        source = files.enter_context(_open_input(job))
        directory = job.request.directory
        if not os.path.isdir(directory):
            text = f"couldn't chdir to `{directory}': No such file or directory: going to /tmp instead"
            with contextlib.suppress(OSError):
                error.write(f"slurmstepd: error: {text}\n".encode(errors="surrogateescape"))
            directory = "/tmp"  # noqa: S108
        return _spawn(job, environ, directory, (source, out, error))


def _for_bash(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables, with which a bash that runs the script finds Slurm's stand-ins even after /etc/profile."""
    first = job.request.script.split("\n", 1)[0].removeprefix("#!").split()
    if "bash" not in (word.rpartition("/")[2] for word in first[:2]):
        return dict(environ)
    own = {"HPCRESUME_BASH_ENV": environ["BASH_ENV"]} if "BASH_ENV" in environ else {}
    return {**environ, **own, "BASH_ENV": str(Path(environ[SLURM_CONF]).with_name("bash_env"))}


def _spawn(
    job: Job, environ: Mapping[str, str], directory: str, streams: tuple[BinaryIO, BinaryIO, BinaryIO]
) -> subprocess.Popen[bytes]:
    for attempt in range(_RETRIES):
        try:
            return subprocess.Popen(
                [str(job.spool), *job.request.arguments],
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                env=_for_bash(job, environ),
                cwd=directory,
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:
            number = getattr(problem, "errno", None) or errno.EINVAL
            if number == errno.ETXTBSY and attempt + 1 < _RETRIES:
                time.sleep(0.002)
                continue
            text = f"slurmstepd: error: execve(): {job.spool}: {os.strerror(number)}\n"
            with contextlib.suppress(OSError):
                streams[2].write(text.encode())
            raise BatchError(text.strip(), number) from problem
    raise AssertionError("unreachable")


def _open_log(path: str, truncate: bool, job: Job) -> BinaryIO:
    """Append always, so that several writers never overwrite each other; empty it first when asked."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if truncate else 0)
    try:
        return os.fdopen(os.open(path, flags, 0o644), "ab", buffering=0)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise BatchError(f"job {job.id}: could not open {path}: {reason}", 1) from problem


def _open_input(job: Job) -> BinaryIO:
    pattern = job.request.input
    path = os.devnull if pattern is None else os.path.join(job.request.directory, file_name(pattern, job.letters()))
    try:
        return open(path, "rb")
    except (OSError, ValueError) as problem:
        raise BatchError(f"job {job.id}: could not open {path}", 1) from problem


def note(job: Job, text: str) -> None:
    """A line of slurmstepd's in the job's error log."""
    with contextlib.suppress(OSError, BatchError), _open_log(job.error(), False, job) as log:
        log.write(f"slurmstepd: error: {text}\n".encode(errors="surrogateescape"))


def exit_status(code: int) -> tuple[int, int]:
    """(exit code, signal) of a process from subprocess's return code."""
    return (code, 0) if code >= 0 else (0, -code)
