"""Changing a job that waits: held with words that people see, started later, kept off nodes, moved elsewhere.

Slurm takes most of these only while the job waits, that is after `scontrol requeue` and before the next start; seen
on 22.05, it takes them at once, while the old processes are still being killed. Nothing here raises: a change that
is refused must not cost the run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.policy.fallback import Resources
from hpcresume.policy.suspects import NodeFacts
from hpcresume.slurm.commands import (
    Answer,
    Execute,
    Requeue,
    RequeueAnswer,
    Sleep,
    check_job_id,
    execute,
    patiently,
    words_of,
)

__all__ = [
    "Change",
    "as_options",
    "change_job",
    "comment_of",
    "expand_nodes",
    "hold_in_queue",
    "partition_nodes",
    "resource_changes",
]

TIMEOUT = 5.0
"""Seconds for one of these commands. After a requeue the KILL comes within max(KillWait, 5) seconds."""
LONGEST_COMMENT = 250
"""Characters; squeue shows a comment on one line."""

_UP = frozenset({"allocated", "completing", "idle", "mixed", "planned", "reserved", "maint"})
"""States of nodes on which jobs run now or soon (sinfo(1), NODE STATE CODES); the flags behind them do not count."""
_UNFIT = frozenset("*~#!%$@^")
"""Flags behind a state that say that the node does not answer, or is switched off, or about to be (sinfo(1))."""
_OPTIONS = {"Partition": "--partition", "NumNodes": "--nodes", "NumTasks": "--ntasks"}
"""scontrol's key → sbatch's option."""


@dataclass(frozen=True)
class Change:
    """One `Key=value` of `scontrol update`, and what it is for, in plain words."""

    key: str
    value: str
    purpose: str

    @property
    def word(self) -> str:
        """As scontrol takes it."""
        return f"{self.key}={self.value}"


def change_job(
    job_id: str, changes: Sequence[Change], *, timeout: float = TIMEOUT, execute: Execute = execute,
    sleep: Sleep = time.sleep,
) -> tuple[tuple[Change, str], ...]:  # fmt: skip
    """Change a job; return what was refused, with Slurm's words.

    All at once first. Slurm refuses the whole when it refuses a part, so then one after the other.
    """
    try:
        check_job_id(job_id)
    except SlurmError as error:
        return tuple((each, str(error)) for each in changes)
    if not changes:
        return ()
    together = patiently(_update(job_id, changes), timeout, execute, sleep)
    if together.code == 0:
        return ()
    if len(changes) == 1 or together.code is None:  # a command that is missing or hangs would do so again
        return tuple((each, words_of(together)) for each in changes)
    alone = [(each, patiently(_update(job_id, [each]), timeout, execute, sleep)) for each in changes]
    return tuple((each, words_of(answer)) for each, answer in alone if answer.code != 0)


def hold_in_queue(
    job_id: str, comment: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> RequeueAnswer:
    """Put a running job back in the queue, held, with a comment: Slurm kills it, and it waits for `scontrol release`.

    squeue shows it as "(job requeued in held state)", `squeue -O JobID,Reason:40,Comment:80` with the comment. A job
    that Slurm has requeued by itself already (a lost node) is merely held. Never raises.
    """
    try:
        check_job_id(job_id)
    except SlurmError as error:
        return RequeueAnswer(Requeue.REFUSED, str(error))
    change_job(job_id, [Change("Comment", comment, "why")], timeout=timeout, execute=execute, sleep=sleep)
    answer = patiently(["scontrol", "requeuehold", job_id], timeout, execute, sleep)
    if answer.code not in (0, None) and "pending" in words_of(answer).lower():
        answer = patiently(["scontrol", "hold", job_id], timeout, execute, sleep)
    if answer.code == 0:
        return RequeueAnswer(Requeue.ACCEPTED)
    return RequeueAnswer(Requeue.UNAVAILABLE if answer.code is None else Requeue.REFUSED, words_of(answer))


def comment_of(
    job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> str | None:
    """The job's comment, "" without one; None when Slurm cannot be asked."""
    try:
        check_job_id(job_id)
    except SlurmError:
        return None
    words = ["squeue", "--noheader", "--states=all", "--format=%k", f"--jobs={job_id}"]
    answer = patiently(words, timeout, execute, sleep)
    if answer.code != 0:
        return None
    text = answer.out.strip("\n")
    return "" if text.strip() == "(null)" else text


def expand_nodes(
    text: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> tuple[str, ...] | None:
    """The names behind `n[1-3],m7`; None when Slurm cannot be asked."""
    if not text:
        return ()
    if not any(c in text for c in "[],"):
        return (text,)
    answer = patiently(["scontrol", "show", "hostnames", text], timeout, execute, sleep)
    return tuple(answer.out.split()) if answer.code == 0 else None


def partition_nodes(
    partition: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> tuple[NodeFacts, ...]:
    """The nodes of a partition (of several, with commas); empty when Slurm cannot be asked."""
    words = ["sinfo", "--noheader", "--Node", f"--partition={partition}", "--format=%N|%T|%c|%m|%f|%G"]
    answer: Answer = patiently(words, timeout, execute, sleep)
    found = {}
    for line in answer.out.splitlines() if answer.code == 0 else ():
        name, _, rest = line.strip().partition("|")
        state, _, kind = rest.partition("|")
        if name and kind:
            flags = state.lower().lstrip("abcdefghijklmnopqrstuvwxyz_")
            bare = state.lower()[: len(state) - len(flags)]
            found[name] = NodeFacts(name, kind, bare in _UP and not _UNFIT & set(flags))
    return tuple(found.values())


def resource_changes(wanted: Resources, purpose: str) -> list[Change]:
    """What to update so that a waiting job asks for these resources."""
    changes = []
    if wanted.partition is not None:
        changes.append(Change("Partition", wanted.partition, purpose))
    if wanted.nodes is not None:
        least, most = wanted.nodes
        changes.append(Change("NumNodes", f"{least}-{most}", purpose))
    if wanted.tasks is not None:
        changes.append(Change("NumTasks", str(wanted.tasks), purpose))
    if wanted.cpus is not None:
        changes.append(Change("NumCPUs", str(wanted.cpus), purpose))
    return changes


def as_options(changes: Sequence[Change]) -> list[str]:
    """The changes of resources as options of sbatch, for a job that is submitted instead of being changed."""
    return [f"{_OPTIONS[change.key]}={change.value}" for change in changes if change.key in _OPTIONS]


def _update(job_id: str, changes: Sequence[Change]) -> list[str]:
    return ["scontrol", "update", f"JobId={job_id}", *(each.word for each in changes)]
