"""The quality of service of a job, where preemption goes by it (PreemptType=preempt/qos): its grace and its mode."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.slurm.commands import TIMEOUT, Execute, check_job_id, execute, patiently
from hpcresume.slurm.job_text import parse_span
from hpcresume.slurm.queue import said

__all__ = ["Qos", "qos_of_job"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_MODE = re.compile(r"[a-z,]{0,60}")


@dataclass(frozen=True)
class Qos:
    """What `sacctmgr show qos` says.

    Attributes:
        name: its name.
        grace: seconds that a preempted job is given, None when not said.
        preempt_mode: what a preemption does to its jobs, in capitals; "" when that is the cluster's affair.
    """

    name: str
    grace: float | None = None
    preempt_mode: str = ""


def qos_of_job(job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute) -> Qos:
    """Ask squeue for the name, and sacctmgr for the rest.

    Raises:
        SlurmError: one of them is missing, hangs, fails, or answers what is not understood.
    """
    check_job_id(job_id)
    words = ["squeue", "--noheader", "--states=all", "--array", "--format=%q", f"--jobs={job_id}"]
    answer = patiently(words, timeout, execute)
    names = answer.out.split() if answer.code == 0 else []
    if len(names) != 1 or _NAME.fullmatch(names[0]) is None:
        raise SlurmError(f"the QOS of the job is not known: {said(answer)}", where=f"job {job_id}")
    words = ["sacctmgr", "--noheader", "--parsable2", "--readonly", "show", "qos", f"name={names[0]}",
             "format=Name,GraceTime,PreemptMode"]  # fmt: skip
    answer = patiently(words, timeout, execute)
    found = [line.split("|") for line in answer.out.splitlines()] if answer.code == 0 else []
    rows = [row for row in found if len(row) == 3 and row[0] == names[0] and _MODE.fullmatch(row[2].lower())]
    if len(rows) != 1:
        raise SlurmError(f"sacctmgr show qos: {said(answer)}", where=f"QOS {names[0]}")
    mode = rows[0][2].upper()
    return Qos(names[0], parse_span(rows[0][1]), "" if mode == "CLUSTER" else mode)
