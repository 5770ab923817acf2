"""The one place that runs Slurm commands: argument lists, never a shell, each with a time limit.

A training never waits for Slurm, and never dies of it: `requeue` and `job_alive` report what happened,
`show_job` raises `SlurmError` only.
"""

from __future__ import annotations

import enum
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.io.bounded_run import run_bounded
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.job_text import parse_job

__all__ = [
    "Answer",
    "Execute",
    "Requeue",
    "RequeueAnswer",
    "Sleep",
    "check_job_id",
    "down_nodes",
    "execute",
    "is_forgotten",
    "job_alive",
    "may_pass",
    "node_address",
    "patiently",
    "requeue",
    "show_job",
    "show_nodes",
    "told_by_environment",
    "words_of",
]

TIMEOUT = 10.0
"""Seconds for one command. slurmctld's own MessageTimeout is 10 by default (slurm.conf(5))."""
PAUSES = (0.5, 2.0)
"""Seconds between tries when the controller did not answer."""

_JOB_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?")
_NODE_LIST = re.compile(r"[A-Za-z0-9_.,\[\]-]{1,65536}")
_NODE = re.compile(r"NodeName=(\S{1,255})\s")
_NODE_ADDRESS = re.compile(r"\bNodeAddr=([A-Za-z0-9_.:-]{1,255})(?=\s|$)")
_BUSY = re.compile(
    r"timed out|unable to contact|connection refused|connection reset|connection failure|transport endpoint"
    r"|zero bytes were transmitted|standby mode|protocol authentication|munge|temporarily|try again",
    re.IGNORECASE,
)
"""What Slurm's commands say while slurmctld or munged restarts or fails over (slurm_errno.c; connect(2))."""
_EXPORTED = r"[A-Za-z_][A-Za-z0-9_]*(?:=[^,'\"\\]*)?"
_EXPORT_ALL = re.compile(rf"--export=ALL,({_EXPORTED}(?:,{_EXPORTED})*)")
"""Assignments that need no quotes, and names of variables that are exported anyway."""
_SILENT = "no answer within"
_UNKNOWN_JOB = "invalid job id"
_OF_A_JOB = ("SLURM_", "SBATCH_", "SLURMD_", "OMPI_COMM_", "PMI", "HPCRESUME_LAUNCH", "HPCRESUME_SUPERVISED",
             "HPCRESUME_RELEASE", "HPCRESUME_MICRO", "HPCRESUME_BEHIND")  # fmt: skip
_KEPT = frozenset({"SLURM_CONF", "SLURM_JWT"})
"""How the commands find the cluster, and who they are."""
_ALIVE = frozenset(
    {"COMPLETING", "CONFIGURING", "RESIZING", "RUNNING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
)
"""Job states in which nodes are held (squeue(1), JOB STATE CODES)."""


@dataclass(frozen=True)
class Answer:
    """What a command gave back. `code` is its exit code; None when it was missing or took too long."""

    code: int | None
    out: str
    err: str


Execute = Callable[[Sequence[str], float], Answer]
"""Runs an argument list within so many seconds: the seam that tests replace."""
Sleep = Callable[[float], None]
"""Waits so many seconds, as `time.sleep` does: the other seam."""


class Requeue(str, enum.Enum):
    """What became of the wish to requeue the job."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class RequeueAnswer:
    """ACCEPTED: Slurm will end this job and start it again. `detail` is Slurm's own words otherwise."""

    result: Requeue
    detail: str = ""

    @property
    def may_pass(self) -> bool:
        """Did the controller merely not answer, so that asking again later may help?"""
        return self.result is not Requeue.ACCEPTED and may_pass(self.detail)


def may_pass(detail: str) -> bool:
    """Are these words of Slurm's, or ours on its silence, such that asking again later may help?"""
    return bool(_BUSY.search(detail)) or _SILENT in detail


def is_forgotten(detail: str) -> bool:
    """Do these words of Slurm's say that it knows no such job (any more: MinJobAge)?"""
    return _UNKNOWN_JOB in detail.lower()


def execute(arguments: Sequence[str], timeout: float) -> Answer:
    """Run a command, output captured as text (undecodable bytes replaced). Never raises."""
    # A user's SLURM_TIME_FORMAT or SQUEUE_FORMAT changes what the commands print. A job that is submitted from
    # within a job must not take itself for that job, nor for a rank of it.
    unwanted = ("SLURM_TIME_FORMAT", "SQUEUE_", "SCONTROL_", *(_OF_A_JOB if arguments[0] == "sbatch" else ()))
    environ = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(unwanted)} | {"LC_ALL": "C"}
    if arguments[0] == "sbatch":
        arguments, told = told_by_environment(arguments)
        environ |= told
    try:
        done = run_bounded(arguments, timeout, environ)
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"{_SILENT} {timeout:g} s")
    except (OSError, ValueError) as error:
        return Answer(None, "", f"{type(error).__name__}: {error}")
    return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def told_by_environment(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """`--export=ALL,NAME=VALUE` as sbatch's own environment with `--export=ALL`.

    Both export the same. But for a list, also one that begins with ALL, sbatch has slurmd start a login shell of the
    user's on the node (--get-user-env; seen on 22.05), and when that one takes longer than BatchStartTimeout
    Slurm takes the job for lost.
    """
    words, told = list(arguments), dict[str, str]()
    for index, word in enumerate(words):
        match = _EXPORT_ALL.fullmatch(word)
        if match:
            words[index] = "--export=ALL"
            told = dict(each.split("=", 1) for each in match[1].split(",") if "=" in each)
    return words, told


def show_job(
    job_id: str,
    *,
    name: str | None = None,
    timeout: float = TIMEOUT,
    execute: Execute = execute,
    sleep: Sleep = time.sleep,
) -> JobFacts:
    """Ask Slurm about a job.

    Args:
        job_id: as `SlurmEnvironment.job_id` gives it.
        name: the job's name (SLURM_JOB_NAME); by default the environment's, when the environment is this job's.
        timeout: seconds for each try.
        execute: runs the command.
        sleep: waits between tries.

    Raises:
        SlurmError: scontrol is missing, hangs, refuses, or answers what cannot be trusted.
    """
    check_job_id(job_id)
    answer = patiently(["scontrol", "--oneliner", "show", "job", job_id], timeout, execute, sleep)
    if answer.code != 0:
        raise SlurmError(f"scontrol show job: {words_of(answer)}", where=f"job {job_id}")
    known = os.environ.get("SLURM_JOB_NAME") if name is None else name
    return parse_job(answer.out, job_id, name=known, asked_at=time.time())


def down_nodes(
    node_list: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> tuple[str, ...]:
    """Which nodes of a list (`n[1-4,7]`, as SLURM_JOB_NODELIST has it) are down or do not answer. Never raises.

    Empty also when Slurm cannot be asked.
    """
    if not _NODE_LIST.fullmatch(node_list):
        return ()
    words = ["sinfo", "--noheader", "--Node", f"--nodes={node_list}", "--format=%N %T"]
    answer = patiently(words, timeout, execute, sleep)
    pairs = [line.split() for line in answer.out.splitlines()] if answer.code == 0 else []
    # The flag * means that the node does not respond (sinfo(1), NODE STATE CODES).
    lost = {
        pair[0] for pair in pairs if len(pair) == 2 and (pair[1].lower().startswith("down") or pair[1].endswith("*"))
    }
    return tuple(sorted(lost))


def node_address(node: str, *, timeout: float = TIMEOUT, execute: Execute = execute) -> str | None:
    """Where Slurm's own daemons find a node: its NodeAddr (slurm.conf(5)), a name or a number. Never raises.

    None when Slurm cannot be asked.
    """
    lines = show_nodes(node, timeout=timeout, execute=execute).values()
    found = [match[1] for line in lines if (match := _NODE_ADDRESS.search(line)) is not None]
    return found[0] if found else None


def show_nodes(
    node_list: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> dict[str, str]:
    """What Slurm says of each node of a list (`n[1-4,7]`), a line each, by its name. Never raises.

    Empty when Slurm cannot be asked.
    """
    if not _NODE_LIST.fullmatch(node_list):
        return {}
    answer = patiently(["scontrol", "--oneliner", "show", "node", node_list], timeout, execute, sleep)
    lines = answer.out.splitlines() if answer.code == 0 else []
    return {match[1]: line for line in lines if (match := _NODE.match(line)) is not None}


def requeue(
    job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> RequeueAnswer:
    """Put a running job back in the queue: Slurm kills it (CONT+TERM, then KILL) and starts it again.

    Call it after the commit only. Never raises. Slurm refuses a job with Requeue=0, one of salloc or srun,
    and a pending one (scontrol(1)); a pending one will start anyway, so that counts as accepted.
    """
    try:
        check_job_id(job_id)
    except SlurmError as error:
        return RequeueAnswer(Requeue.REFUSED, str(error))
    answer = patiently(["scontrol", "requeue", job_id], timeout, execute, sleep)
    if answer.code == 0:
        return RequeueAnswer(Requeue.ACCEPTED)
    words = words_of(answer)
    if "pending" in words.lower():
        return RequeueAnswer(Requeue.ACCEPTED, words)
    return RequeueAnswer(Requeue.UNAVAILABLE if answer.code is None else Requeue.REFUSED, words)


def job_alive(
    job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> bool | None:
    """Does the job hold nodes now? None when Slurm cannot be asked. Never raises.

    A pending job, one that waits after a requeue included, holds nothing: False. So does one that Slurm has
    forgotten (MinJobAge).
    """
    try:
        check_job_id(job_id)
    except SlurmError:
        return None
    words = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job_id}"]
    answer = patiently(words, timeout, execute, sleep)
    if answer.code == 0:
        return any(line.strip() in _ALIVE for line in answer.out.splitlines())
    return False if is_forgotten(answer.err) else None


def check_job_id(job_id: str) -> None:
    """Whether it is `123` or `120_3`: nothing else may become an argument.

    Raises:
        SlurmError: it is not.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise SlurmError("not a job id", where=repr(job_id)[:60], hint="123, or 120_3 for a task of an array")


def patiently(arguments: Sequence[str], timeout: float, execute: Execute, sleep: Sleep = time.sleep) -> Answer:
    """Run a command, again after a pause while the controller says that it is busy."""
    answer = execute(arguments, timeout)
    for pause in PAUSES:
        if answer.code == 0 or not _BUSY.search(answer.err):
            break
        sleep(pause)
        answer = execute(arguments, timeout)
    return answer


def words_of(answer: Answer) -> str:
    """Slurm's own message on one line of at most 300 characters, nothing in it that steers a terminal."""
    text = " ".join((answer.err.strip() or answer.out.strip() or f"exit code {answer.code}").split())
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
