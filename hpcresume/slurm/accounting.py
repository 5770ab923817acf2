"""What Slurm's accounting remembers, where a cluster has it: earlier starts of a job, its command line, its steps.

Nothing here raises: a cluster without accounting, or whose database does not answer, knows nothing.
"""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.slurm.batch_script import AskedWarning, asked_warning, parse_warning, read_batch_script
from hpcresume.slurm.commands import Execute, Sleep, check_job_id, execute, patiently
from hpcresume.slurm.job_text import parse_time

__all__ = ["PastStart", "asked_on_command_line", "memory_kills_of_steps", "past_starts", "warning_in", "warning_of_job"]

TIMEOUT = 5.0
"""Seconds for one sacct: nobody waits long for what may not be there."""
SEPARATOR = "\x1f"
"""A user's command line may hold any printable character."""

_STATE = re.compile(r"[A-Z_]{2,40}")
_ALONE = frozenset("HkOQsvVWhu")
"""Short options of sbatch that take no value, so that what follows them may be the script."""
_ALONE_LONG = frozenset(
    {"contiguous", "exclusive", "get-user-env", "hold", "kill-on-invalid-dep", "no-kill", "no-requeue", "overcommit",
     "oversubscribe", "parsable", "propagate", "quiet", "reboot", "requeue", "spread-job", "test-only",
     "use-min-nodes", "verbose", "wait"}
)  # fmt: skip


@dataclass(frozen=True)
class PastStart:
    """One start of a job as accounting keeps it: Slurm's state at its end, and when it began and ended."""

    state: str
    start: float | None
    end: float | None


def past_starts(
    job_id: str, *, execute: Execute = execute, sleep: Sleep = time.sleep, timeout: float = TIMEOUT
) -> tuple[PastStart, ...]:
    """All starts of a job, in order; the states are NODE_FAIL, PREEMPTED, REQUEUED, … Empty when nothing is known."""
    rows = _ask(job_id, ["--duplicates", "--allocations"], "State,Start,End", execute, sleep, timeout)
    found = []
    for state, start, end in (row for row in rows if len(row) == 3):
        word = state.partition(" ")[0]  # `CANCELLED by 1000`
        if _STATE.fullmatch(word):
            found.append(PastStart(word, parse_time(start), parse_time(end)))
    return tuple(sorted(found, key=lambda each: each.start or 0.0))


def memory_kills_of_steps(
    job_id: str, *, execute: Execute = execute, sleep: Sleep = time.sleep, timeout: float = TIMEOUT
) -> tuple[str, ...]:
    """One sentence for each step of the job's newest start that Slurm says was out of memory, on whatever node."""
    rows = _ask(job_id, [], "JobID,State,ExitCode", execute, sleep, timeout)
    return tuple(
        f"Slurm: step {step} ended as OUT_OF_MEMORY (exit code {code}; sacct)"
        for step, state, code in (row for row in rows if len(row) == 3)
        if state.startswith("OUT_OF_ME") and "." in step
    )


def asked_on_command_line(
    job_id: str, *, execute: Execute = execute, sleep: Sleep = time.sleep, timeout: float = TIMEOUT
) -> AskedWarning | None:
    """The `--signal` that was given to sbatch beside the script; None where there was none, or nobody knows.

    `scontrol show job`, `squeue` and its --json do not tell it (looked at on 22.05 and 24.11): accounting alone keeps
    the command line.
    """
    rows = _ask(job_id, ["--allocations"], "SubmitLine", execute, sleep, timeout)
    return warning_in(" ".join(word for row in rows for word in row))  # a line break in it is a blank like any other


def warning_of_job(job_id: str, *, execute: Execute = execute, sleep: Sleep = time.sleep) -> AskedWarning | None:
    """What a job's `--signal` asks for: that of the command line, which wins (sbatch(1)), or that of its script.

    Raises:
        SlurmError: accounting knows of none, and the script cannot be read.
    """
    said = asked_on_command_line(job_id, execute=execute, sleep=sleep)
    return said or asked_warning(read_batch_script(job_id, execute=execute))


def warning_in(line: str) -> AskedWarning | None:
    """What the `--signal` in a command line of sbatch's asks for; options behind the script are the script's own."""
    try:
        words = shlex.split(line)[1:]
    except ValueError:
        return None
    found, index = None, 0
    while index < len(words) and words[index].startswith("-") and words[index] != "--":
        word, index = words[index], index + 1
        name, given, value = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            alone = given or name in _ALONE_LONG
        else:
            alone, name = len(word) > 2 or word[1:] in _ALONE, ""
        if not alone and index < len(words):
            value, index = words[index], index + 1
        if len(name) > 2 and "signal".startswith(name):  # sbatch takes any unambiguous beginning
            found = parse_warning(value) or found
    return found


def _ask(
    job_id: str, options: list[str], fields: str, execute: Execute, sleep: Sleep, timeout: float
) -> list[list[str]]:
    try:
        check_job_id(job_id)
    except SlurmError:
        return []
    words = ["sacct", "--noheader", "--parsable2", f"--delimiter={SEPARATOR}", *options, f"--format={fields}"]
    answer = patiently([*words, f"--jobs={job_id}"], timeout, execute, sleep)
    return [line.split(SEPARATOR) for line in answer.out.splitlines()] if answer.code == 0 else []
