"""What a person has Slurm do with a job: cancel it, warn it, release it; and where its output goes.

Each order is an argument list that can be shown before it is given. Requeueing is in `commands`, since the
supervisor does it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.slurm.commands import Execute, execute, patiently
from hpcresume.slurm.queue import is_job_id, said

__all__ = ["Order", "cancel", "give", "output_pattern", "owner", "release", "requeue", "warn"]

TIMEOUT = 30.0
"""Seconds for an order: a busy controller lets it wait, and one that was given up may have been followed."""


@dataclass(frozen=True)
class Order:
    """A command of Slurm, and what it is for, in plain words."""

    arguments: tuple[str, ...]
    purpose: str


def cancel(job_id: str) -> Order:
    """End the job for good, waiting or running."""
    return Order(("scancel", _checked(job_id)), "ends the job for good")


def warn(job_id: str, signal_name: str, *, batch: bool) -> Order:
    """Send a warning, to the batch step alone (where `hpcresume launch` passes it on) or to the ranks."""
    to = ("--batch",) if batch else ()
    who = "the supervisor, which tells all ranks" if batch else "the ranks"
    return Order(("scancel", *to, f"--signal={signal_name}", _checked(job_id)), f"warns {who}: save and stop")


def release(job_id: str) -> Order:
    """Let a job that is held in the queue start."""
    return Order(("scontrol", "release", _checked(job_id)), "lets the held job start")


def requeue(job_id: str) -> Order:
    """Start a job again that is over."""
    return Order(("scontrol", "requeue", _checked(job_id)), "starts the job again under its old number")


def give(order: Order, *, timeout: float = TIMEOUT, execute: Execute = execute) -> None:
    """Give an order.

    Raises:
        SlurmError: the command is missing, hangs, or is refused; Slurm's own words are in it.
    """
    answer = patiently(list(order.arguments), timeout, execute)
    if answer.code is None:
        hint = "is this a machine with Slurm's commands?"
        raise SlurmError(f"{order.arguments[0]}: {said(answer)}", where=" ".join(order.arguments), hint=hint)
    if answer.code != 0:
        raise SlurmError(f"{order.arguments[0]} was refused: {said(answer)}", where=" ".join(order.arguments))


def output_pattern(job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute) -> str | None:
    """The file that a job's output goes to, as it was asked for (%-patterns may be in it); None when not known.

    Never raises: this is asked for only when nothing else tells.
    """
    words: Sequence[str] = ("squeue", "--noheader", "--states=all", "--array", "--Format=stdout:4096")
    if not is_job_id(job_id):
        return None
    answer = patiently([*words, f"--jobs={job_id}"], timeout, execute)
    lines = answer.out.splitlines() if answer.code == 0 else []
    text = lines[0].strip() if len(lines) == 1 else ""
    return text if text.startswith("/") else None


def owner(job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute) -> int:
    """Whose job it is: the user's number.

    Raises:
        SlurmError: Slurm cannot be asked, or does not say.
    """
    words = ["squeue", "--noheader", "--states=all", "--array", "--format=%U", f"--jobs={_checked(job_id)}"]
    answer = patiently(words, timeout, execute)
    numbers = set(answer.out.split()) if answer.code == 0 else set()
    if len(numbers) != 1 or not (number := numbers.pop()).isdecimal():
        raise SlurmError(f"squeue does not say whose job it is: {said(answer)}", where=f"job {job_id}")
    return int(number)


def _checked(job_id: str) -> str:
    if not is_job_id(job_id):
        raise SlurmError("not a job id", where=repr(job_id)[:60], hint="123, or 120_3 for a task of an array")
    return job_id
