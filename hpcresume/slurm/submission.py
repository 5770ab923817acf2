"""What a submission asks of Slurm: sbatch itself, whether a job is still in the queue, and what a partition allows."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcresume.config.slurm_options import parse_time_limit
from hpcresume.errors import ConfigError, SlurmError
from hpcresume.io.bounded_run import run_bounded
from hpcresume.slurm.commands import TIMEOUT, Answer, Execute, execute, told_by_environment

__all__ = ["Partition", "longest_time", "partition", "queue_states", "sbatch"]

SBATCH_TIMEOUT = 60.0
"""Seconds for sbatch: a busy controller lets it wait, and a submission given up may still have happened."""

_ANSWER = re.compile(r"([0-9]{1,10})(?:;[^\s;]{1,256})?")
"""`--parsable`: the number, and the cluster's name when there are several (sbatch(1))."""
_JOB_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?")
_OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "REVOKED"}
)
"""States from which a job does not come back by itself (squeue(1), JOB STATE CODES)."""


@dataclass(frozen=True)
class Partition:
    """What `scontrol show partition` says; None is no limit, or not said.

    Attributes:
        name: its name.
        up: does it start jobs?
        default: is it the one for jobs that name none?
        nodes: how many there are in it.
        max_nodes: the most for one job.
        max_time: the longest time limit, as Slurm writes it.
        default_time: the time limit of a job that names none, as Slurm writes it.
        grace: seconds that a preempted job is given.
        preempt_mode: what a preemption does to its jobs, "" when not said.
    """

    name: str
    up: bool
    default: bool
    nodes: int | None
    max_nodes: int | None
    max_time: str | None
    grace: int | None
    default_time: str | None = None
    preempt_mode: str = ""


def sbatch(script: Path, options: Sequence[str] = (), *, timeout: float = SBATCH_TIMEOUT) -> str:
    """Submit a script file from the working directory, with the environment as it is; return the job's number.

    Raises:
        SlurmError: sbatch is missing, refuses, hangs, or answers what is no job number.
    """
    words = ["sbatch", "--parsable", *options, str(script)]
    try:
        words, told = told_by_environment(words)
        done = run_bounded(words, timeout, {**os.environ, **told})
    except FileNotFoundError as error:
        hint = "submit on a login node; hpcresume emulate runs the script here"
        raise SlurmError("there is no sbatch here", where="PATH", hint=hint) from error
    except OSError as error:
        raise SlurmError(f"sbatch cannot be run: {error.strerror}", where="sbatch") from error
    except subprocess.TimeoutExpired as error:
        what = f"sbatch gave no answer within {timeout:g} s; the job may be in the queue all the same"
        raise SlurmError(what, where=str(script), hint="look with squeue --me before you submit again") from error
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode != 0:
        raise SlurmError(f"sbatch refused: {_one_line(err or out)}", where=str(script), hint="--dry-run shows it")
    lines = out.strip().splitlines()
    match = _ANSWER.fullmatch(lines[-1].strip()) if lines else None
    if match is None:
        hint = "look with squeue --me whether the job is there"
        raise SlurmError(f"sbatch answered no job number: {_one_line(out)}", where=str(script), hint=hint)
    return match[1]


def queue_states(job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute) -> tuple[str, ...] | None:
    """States of a job (of every task of an array) in which it runs, waits, or may come back; None: nobody to ask."""
    if not _JOB_ID.fullmatch(job_id):
        return ()
    answer = execute(["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job_id}"], timeout)
    if answer.code == 0:
        return tuple(s for line in answer.out.splitlines() if (s := line.strip()) and s.partition(" ")[0] not in _OVER)
    return () if "invalid job id" in answer.err.lower() else None


def partition(name: str | None, *, timeout: float = TIMEOUT, execute: Execute = execute) -> Partition | None:
    """One partition, or the default one; None when there is no such.

    Raises:
        SlurmError: Slurm cannot be asked.
    """
    words = ["scontrol", "--oneliner", "show", "partition", *([name] if name is not None else [])]
    answer = execute(words, timeout)
    if answer.code != 0 and "not found" in (answer.err + answer.out).lower():
        return None
    if answer.code != 0:
        raise SlurmError(f"scontrol show partition: {_words(answer)}", where="scontrol")
    found = [_partition(line) for line in answer.out.splitlines() if line.startswith("PartitionName=")]
    return next((each for each in found if (each.name == name if name is not None else each.default)), None)


def longest_time(name: str, *, timeout: float = TIMEOUT, execute: Execute = execute) -> float | None:
    """Seconds of a partition's longest time limit; None: there is none, or it is not known. Never raises."""
    with contextlib.suppress(SlurmError, ConfigError):
        found = partition(name, timeout=timeout, execute=execute)
        if found is not None and found.max_time is not None:
            return parse_time_limit(f"{found.max_time}min" if found.max_time.isdecimal() else found.max_time)
    return None


def _partition(line: str) -> Partition:
    facts = dict(word.partition("=")[::2] for word in line.split())
    return Partition(
        name=facts["PartitionName"],
        up=facts.get("State", "UP") == "UP",
        default=facts.get("Default") == "YES",
        nodes=_number(facts.get("TotalNodes")),
        max_nodes=_number(facts.get("MaxNodes")),
        max_time=_limit(facts.get("MaxTime", "")),
        grace=_number(facts.get("GraceTime")),
        default_time=_limit(facts.get("DefaultTime", "")),
        preempt_mode=facts.get("PreemptMode", "")[:60],
    )


def _limit(text: str) -> str | None:
    """None for UNLIMITED and NONE."""
    return text if text[:1].isdecimal() else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= 9 else None


def _words(answer: Answer) -> str:
    return _one_line(answer.err or answer.out) or f"exit code {answer.code}"


def _one_line(text: str) -> str:
    line = " ".join(text.split()) or "nothing"
    return "".join(c if c.isprintable() else "?" for c in line)[:300]
