"""The queue: what Slurm says of any number of jobs, asked by one squeue.

Owns the question and the reading of the answer. A user's texts (job names, comments) are not asked for, and what is
asked for stands between marks that are drawn anew for each question, so that no text anywhere in the answer can pose
as a job.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.slurm.commands import Answer, Execute, Sleep, execute, patiently
from hpcresume.slurm.job_text import parse_time

__all__ = ["QueuedJob", "ask_queue", "is_job_id", "parse_queue", "said"]

TIMEOUT = 15.0
"""Seconds for one squeue: slurmctld's own MessageTimeout is 10 by default (slurm.conf(5))."""
MOST_NAMED = 100_000
"""Characters of a list of jobs in one argument; Linux takes 131072 (MAX_ARG_STRLEN). Longer: all jobs are asked for."""

FIELDS = ("%i", "%T", "%r", "%S", "%e", "%N", "%P")
"""Job, state, reason, start (for a waiting job: the expected one), end, nodes, partition (squeue(1), --format)."""

_JOB_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?")
_STATE = re.compile(r"[A-Z_]{2,40}")
_UNKNOWN_JOB = "invalid job id"

_OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
     "TIMEOUT"}
)  # fmt: skip
_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
"""Job states (squeue(1), JOB STATE CODES). In any other a job has nodes."""
_HELD = frozenset({"REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})


@dataclass(frozen=True)
class QueuedJob:
    """One job, or one task of an array. Times are seconds since the epoch, None where Slurm says none.

    Attributes:
        id: `123`, or `120_3` for a task of an array.
        state: Slurm's word: PENDING, RUNNING, …
        reason: why it waits, in Slurm's words; "" when it says None.
        start: when it started; of a waiting job when Slurm expects it to.
        end: when it ended, or its limit falls.
        nodes: those it has, in Slurm's compressed form.
        partition: the one it is in, or several with commas.
    """

    id: str
    state: str
    reason: str = ""
    start: float | None = None
    end: float | None = None
    nodes: str = ""
    partition: str = ""

    @property
    def over(self) -> bool:
        """Will it never start again by itself?"""
        return self.state in _OVER

    @property
    def waiting(self) -> bool:
        """Is it in the queue, without nodes?"""
        return self.state in _WAITING

    @property
    def held(self) -> bool:
        """Does it wait for a person to release it? Reasons are JobHeldUser, "job requeued in held state", and such."""
        return self.state in _HELD or (self.waiting and "held" in self.reason.lower())

    @property
    def active(self) -> bool:
        """Has it nodes?"""
        return not self.over and not self.waiting


def is_job_id(text: str) -> bool:
    """Whether it is `123` or `120_3`."""
    return _JOB_ID.fullmatch(text) is not None


def ask_queue(
    job_ids: Iterable[str], *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> Mapping[str, QueuedJob]:
    """What Slurm says of these jobs, by their ids, by one squeue; what is no job id, or forgotten by Slurm, is absent.

    The id of a whole array gives all of its tasks. Nothing is asked when there is no job to ask for.

    Raises:
        SlurmError: squeue is missing, hangs, fails, or answers what is no list of jobs.
    """
    wanted = dict.fromkeys(each for each in job_ids if is_job_id(each))
    if not wanted:
        return {}
    mark = f"~{secrets.token_hex(8)}~"
    named = ",".join(wanted)
    words = ["squeue", "--noheader", "--states=all", "--array", f"--format={mark}{mark.join(FIELDS)}{mark}"]
    if len(named) <= MOST_NAMED:
        words.append(f"--jobs={named}")
    answer = patiently(words, timeout, execute, sleep)
    if answer.code != 0:
        if _UNKNOWN_JOB in answer.err.lower():  # what squeue says of a single job that it does not know
            return {}
        hint = "where Slurm's commands are, on a login node" if answer.code is None else "squeue --me"
        raise SlurmError(said(answer), where="squeue", hint=hint)
    found = parse_queue(answer.out, mark)
    return {job_id: job for job_id, job in found.items() if job_id in wanted or job_id.partition("_")[0] in wanted}


def parse_queue(text: str, mark: str) -> dict[str, QueuedJob]:
    """The jobs in squeue's answer, by id.

    Args:
        text: what it printed: for each job a mark, then each of `FIELDS` with a mark behind it.
        mark: drawn for this answer, so that it is in no user's text.

    Raises:
        SlurmError: the text is no such answer.
    """
    parts = text.split(mark)
    width = len(FIELDS) + 1  # the line break before a job's first mark is a part of its own
    if parts[0].strip() or (len(parts) - 1) % width:
        what = f"squeue answered what is no list of jobs ({len(text)} characters)"
        raise SlurmError(what, where="squeue", hint="squeue --me")
    found = {}
    for index in range(1, len(parts), width):
        job = _job([part.strip() for part in parts[index : index + len(FIELDS)]])
        if job is not None:
            found[job.id] = job
    return found


def _job(cells: list[str]) -> QueuedJob | None:
    """None: an array's tasks on one line (`120_[4-9]`), or nothing that could be a job."""
    job_id, state, reason, start, end, nodes, partition = cells
    job_id = job_id.removesuffix("+0")  # the leader stands for a heterogeneous job
    state = state.partition(" ")[0]  # `CANCELLED by 1000`
    if not is_job_id(job_id) or not _STATE.fullmatch(state):
        return None
    why = "" if reason in ("None", "(null)") else reason[:200]
    return QueuedJob(job_id, state, why, parse_time(start), parse_time(end), nodes, partition)


def said(answer: Answer) -> str:
    """The last line of Slurm's own message, at most 300 characters, nothing in it that steers a terminal."""
    if answer.code is None and answer.err.startswith("FileNotFoundError"):
        return "there is no such command here"
    lines = (answer.err.strip() or answer.out.strip() or f"exit code {answer.code}").splitlines()
    text = " ".join(lines[-1].split())
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
