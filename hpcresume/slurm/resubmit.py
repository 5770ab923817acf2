"""Submitting the job that we are in once more, as another job: where Slurm will not requeue it, or may lose it.

What the job asked for on sbatch's command line is in no script; it is read from the batch step's environment, where
sbatch(1) "OUTPUT ENVIRONMENT VARIABLES" has left a part of it, and the rest from Slurm (`asked`).
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcresume.errors import SlurmError
from hpcresume.slurm.asked import Asked
from hpcresume.slurm.commands import Execute, Sleep, check_job_id, execute, may_pass, patiently, words_of

__all__ = [
    "batch_script",
    "cancel_waiting",
    "cluster_requeues",
    "names_time",
    "same_again",
    "submit_again",
    "submitted_as",
    "working_directory",
]

TIMEOUT = 20.0
"""Seconds for sbatch. Nothing of ours is killed meanwhile: the job ends when we leave."""
PAUSES = (1.0, 5.0)
"""Seconds after an sbatch that was not answered, before it is looked for what came of it."""

_ANSWER = re.compile(r"([0-9]{1,10})(?:;[^\s;]{1,256})?")
_PLAIN = {
    "job-name": "SLURM_JOB_NAME",
    "partition": "SLURM_JOB_PARTITION",
    "account": "SLURM_JOB_ACCOUNT",
    "qos": "SLURM_JOB_QOS",
    "reservation": "SLURM_JOB_RESERVATION",
    "nodes": "SLURM_JOB_NUM_NODES",
    "ntasks-per-node": "SLURM_NTASKS_PER_NODE",
    "cpus-per-task": "SLURM_CPUS_PER_TASK",
    "gpus": "SLURM_GPUS",
    "gpus-per-node": "SLURM_GPUS_PER_NODE",
    "gpus-per-task": "SLURM_GPUS_PER_TASK",
    "mem-per-cpu": "SLURM_MEM_PER_CPU",
    "mem": "SLURM_MEM_PER_NODE",
    "cpus-per-gpu": "SLURM_CPUS_PER_GPU",
    "mem-per-gpu": "SLURM_MEM_PER_GPU",
    "ntasks-per-core": "SLURM_NTASKS_PER_CORE",
    "ntasks-per-gpu": "SLURM_NTASKS_PER_GPU",
    "ntasks-per-socket": "SLURM_NTASKS_PER_SOCKET",
    "threads-per-core": "SLURM_THREADS_PER_CORE",
    "hint": "SLURM_HINT",
    "signal": "SBATCH_SIGNAL",
    "array": "SLURM_ARRAY_TASK_ID",
}
"""sbatch's option → the variable that says what it was. Memory is in megabytes there and here."""


def same_again(environ: Mapping[str, str], directory: str | None = None, asked: Asked | None = None) -> list[str]:
    """Options with which sbatch asks for what this job got, whatever its script says.

    Args:
        environ: the batch step's environment.
        directory: where the job began; None: unknown, and taken to be where it was submitted from.
        asked: what Slurm says that it asked for.
    """
    found = {name: environ[variable] for name, variable in _PLAIN.items() if environ.get(variable)}
    if "ntasks-per-node" not in found and environ.get("SLURM_NTASKS"):
        found["ntasks"] = environ["SLURM_NTASKS"]
    asked = asked if asked is not None else Asked()
    if "gres" in asked.known:
        found.pop("gpus-per-node", None)  # Slurm keeps both as one, and refuses both together
    found |= asked.known
    words = [f"--{name}={value}" for name, value in found.items() if value.isprintable()]
    directory = directory or environ.get("SLURM_SUBMIT_DIR", "")
    return [*words, *asked.plain, *([f"--chdir={directory}"] if directory.startswith("/") else [])]


def names_time(script: str) -> bool:
    """Does a batch script itself name a time limit? As sbatch does it, lines count up to the first command."""
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH") and re.search(r"\s(?:--time[= ]|-t\s*[0-9])", line):
            return True
    return False


def working_directory(
    job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> str | None:
    """Where a job's script begins, which `--chdir` may have made another folder than the one it was submitted from.

    None when Slurm does not say it in one line: the name of a folder can hold anything.
    """
    check_job_id(job_id)
    words = ["squeue", "--noheader", "--states=all", "--format=%Z", f"--jobs={job_id}"]
    answer = patiently(words, timeout, execute, sleep)
    lines = answer.out.splitlines() if answer.code == 0 else []
    return lines[0] if len(lines) == 1 and lines[0].startswith("/") and lines[0].isprintable() else None


def batch_script(
    job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> str:
    """The script of a job that Slurm still knows.

    Raises:
        SlurmError: Slurm cannot be asked, or has no script for us.
    """
    check_job_id(job_id)
    answer = patiently(["scontrol", "write", "batch_script", job_id, "-"], timeout, execute, sleep)
    begin = answer.out.find("#!")
    if answer.code != 0 or begin < 0:
        raise SlurmError(f"scontrol write batch_script: {words_of(answer)}", where=f"job {job_id}")
    return answer.out[begin:]


def submit_again(
    script: Path, options: Sequence[str], *, tried: bool = False, timeout: float = TIMEOUT, execute: Execute = execute,
    sleep: Sleep = time.sleep,
) -> str:  # fmt: skip
    """Submit a script file; return the new job's number.

    An sbatch that nobody answered may have made the job all the same. Before the next try it is looked for, by the
    script's path, which no other submission has; and it is taken when it is there.

    Args:
        script: an absolute path that is this submission's alone.
        options: of sbatch.
        tried: has this script been submitted before, and was that not answered?
        timeout: seconds for each command.
        execute: runs it.
        sleep: waits between tries.

    Raises:
        SlurmError: sbatch is missing, refuses, hangs, or answers what is no job number; or nobody says whether an
            earlier try has made the job.
    """
    for pause in (*PAUSES, None):
        if tried:
            made = submitted_as(script, timeout=timeout, execute=execute, sleep=sleep)
            if made is None:
                raise SlurmError("sbatch: no answer within its time, nor from squeue since", where=str(script))
            if made:
                return _only(made, timeout, execute, sleep)
        answer = execute(["sbatch", "--parsable", *options, str(script)], timeout)
        lines = answer.out.strip().splitlines()
        match = _ANSWER.fullmatch(lines[-1].strip()) if answer.code == 0 and lines else None
        if match is not None:
            return match[1] if not tried else _only_this(match[1], script, timeout, execute, sleep)
        if pause is None or not may_pass(words_of(answer)):
            break
        tried = True
        sleep(pause)
    raise SlurmError(f"sbatch: {words_of(answer)}", where=str(script))


def submitted_as(
    script: Path, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> tuple[str, ...] | None:
    """The numbers of my jobs, over or not, that were made from a script file; None when Slurm cannot be asked."""
    mark = f"~{secrets.token_hex(8)}~"
    words = ["squeue", "--noheader", "--me", "--states=all", f"--format={mark}%F{mark}%o{mark}"]
    answer = patiently(words, timeout, execute, sleep)
    if answer.code != 0:
        return None
    parts = answer.out.split(mark)
    found = zip(parts[1::3], parts[2::3], strict=False)
    return tuple(dict.fromkeys(job for job, command in found if command.strip() == str(script) and job.isdecimal()))


def _only_this(number: str, script: Path, timeout: float, execute: Execute, sleep: Sleep) -> str:
    """An earlier try may have come through later than it was looked for: one job is enough."""
    made = submitted_as(script, timeout=timeout, execute=execute, sleep=sleep) or ()
    return _only((number, *(each for each in made if each != number)), timeout, execute, sleep)


def _only(made: Sequence[str], timeout: float, execute: Execute, sleep: Sleep) -> str:
    for other in made[1:]:
        cancel_waiting(other, timeout=timeout, execute=execute, sleep=sleep)
    return made[0]


def cluster_requeues(*, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep) -> bool | None:
    """Does the cluster let jobs be requeued unless they say otherwise (JobRequeue, slurm.conf(5))? None: no answer."""
    answer = patiently(["scontrol", "show", "config"], timeout, execute, sleep)
    match = re.search(r"^JobRequeue\s*=\s*([01])\s*$", answer.out, re.MULTILINE) if answer.code == 0 else None
    return match[1] == "1" if match else None


def cancel_waiting(
    job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> bool:
    """Cancel a job if it has not started yet; False when Slurm could not be asked. Never raises."""
    try:
        check_job_id(job_id)
    except SlurmError:
        return False
    answer = patiently(["scancel", "--state=PENDING", job_id], timeout, execute, sleep)
    return answer.code is not None and ("invalid job id" in answer.err.lower() or answer.code == 0)
