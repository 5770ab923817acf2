"""Jobs in the queue that wait for another job, and what they wait for when that one is replaced.

Slurm ties them to a number. A job that goes on under another number would leave them with a dependency that is never
satisfied, and one that failed and was started again too: Slurm never looks at a failed dependency a second time (seen
on 22.05 and 24.11), but takes `scontrol update Dependency` and then waits anew.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

from hpcresume.slurm.changes import Change, change_job
from hpcresume.slurm.commands import Execute, Sleep, execute, patiently

__all__ = ["Dependent", "after_all", "dependents_of", "lead_over"]

TIMEOUT = 10.0
"""Seconds for squeue."""
_JOB_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?")
_STATE = re.compile(r"\((unfulfilled|failed|fulfilled)\)")
_FOLLOWING = frozenset({"afterok", "afterany"})
"""What waits for the end of the work. `afternotok` waits for the end of that very job."""


@dataclass(frozen=True)
class Dependent:
    """A waiting job: what it waits for as sbatch takes it, and whether that has failed as Slurm sees it."""

    job_id: str
    condition: str
    failed: bool


def after_all(job_ids: Collection[str]) -> str:
    """`afterok:12:13`: begin when all of them have ended well."""
    return ":".join(("afterok", *job_ids))


def dependents_of(
    job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute, sleep: Sleep = time.sleep
) -> tuple[Dependent, ...]:
    """My waiting jobs that begin only when this one has ended (well). None when Slurm cannot be asked: no error."""
    if not _JOB_ID.fullmatch(job_id):
        return ()
    mark = f"~{secrets.token_hex(8)}~"
    words = ["squeue", "--noheader", "--me", "--states=PENDING", "--array", f"--format={mark}%i{mark}%E{mark}"]
    answer = patiently(words, timeout, execute, sleep)
    found = []
    for line in answer.out.split("\n") if answer.code == 0 else ():
        parts = line.split(mark)
        if len(parts) == 4 and _JOB_ID.fullmatch(parts[1]):
            conditions = [part for part in re.split("[,?]", parts[2]) if _names(part, job_id)]
            if conditions:
                plain = _STATE.sub("", parts[2]).replace("_*", "")
                found.append(Dependent(parts[1], plain, any("(failed)" in part for part in conditions)))
    return tuple(found)


def lead_over(
    old: str, new: str, *, but: Collection[str] = (), timeout: float = TIMEOUT, execute: Execute = execute,
    sleep: Sleep = time.sleep,
) -> tuple[tuple[str, str], ...]:  # fmt: skip
    """Let the jobs that wait for `old` wait for `new`; (job, Slurm's refusal or "") for each. Never raises.

    Args:
        old: the job that is over, or will be.
        new: the job that goes on instead; the same number where a failed job has been started again.
        but: jobs that are left alone.
        timeout: seconds for each command.
        execute: runs it.
        sleep: waits between tries.
    """
    answers = []
    for each in dependents_of(old, timeout=timeout, execute=execute, sleep=sleep):
        if each.job_id in (*but, new) or (old == new and not each.failed):
            continue
        wanted = re.sub("[^,?]+", lambda part: _instead(part[0], old, new), each.condition)
        change = Change("Dependency", wanted, f"job {new} goes on instead of job {old}")
        refused = change_job(each.job_id, [change], timeout=timeout, execute=execute, sleep=sleep)
        answers.append((each.job_id, refused[0][1] if refused else ""))
    return tuple(answers)


def _names(part: str, job_id: str) -> bool:
    kind, *targets = _STATE.sub("", part).split(":")
    return kind in _FOLLOWING and job_id in targets


def _instead(part: str, old: str, new: str) -> str:
    kind, *targets = part.split(":")
    if kind not in _FOLLOWING:
        return part
    return ":".join((kind, *(new if each == old else each for each in targets)))
