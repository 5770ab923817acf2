"""The batch script of a job as Slurm keeps it, and the warning that its lines ask for."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from hpcresume.errors import SlurmError
from hpcresume.slurm.commands import TIMEOUT, Execute, check_job_id, execute, patiently
from hpcresume.slurm.queue import said

__all__ = ["AskedWarning", "asked_warning", "parse_warning", "read_batch_script"]

DEFAULT_LEAD = 60.0
"""Seconds before the limit when `--signal` names none (sbatch(1))."""

_SIGNAL = re.compile(r"(?:([RB]+):)?(?:SIG)?([A-Z0-9]{1,10})(?:@([0-9]{1,9}))?", re.IGNORECASE)


@dataclass(frozen=True)
class AskedWarning:
    """What `--signal` asks for: the signal's name without SIG, to the batch shell alone or to the ranks, and when.

    Attributes:
        name: for instance `USR1`.
        batch: `B:`, to the batch shell alone.
        lead: seconds before the time limit.
    """

    name: str
    batch: bool
    lead: float


def read_batch_script(job_id: str, *, timeout: float = TIMEOUT, execute: Execute = execute) -> str:
    """The script that the job was submitted with.

    Raises:
        SlurmError: scontrol is missing, hangs, or refuses: only the owner may read it.
    """
    check_job_id(job_id)
    answer = patiently(["scontrol", "write", "batch_script", job_id, "-"], timeout, execute)
    if answer.code != 0:
        raise SlurmError(f"scontrol write batch_script: {said(answer)}", where=f"job {job_id}")
    return answer.out


def asked_warning(script: str) -> AskedWarning | None:
    """What the `#SBATCH --signal` lines of a script ask for; None without one. Options beside the script are not seen.

    As sbatch does it, lines count up to the first command, and the last one wins (sbatch(1)).
    """
    found = None
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if not line.startswith("#SBATCH"):
            continue
        for text in re.findall(r"--signal[= ]\s*[\"']?([^\s\"']{1,40})", line):
            found = parse_warning(text) or found
    return found


def parse_warning(text: str) -> AskedWarning | None:
    """The value of `--signal`, `B:USR1@300` say; None for what sbatch would not take."""
    match = _SIGNAL.fullmatch(text)
    name = _name(match[2].upper()) if match is not None else None
    if match is None or name is None:
        return None
    return AskedWarning(name, "B" in (match[1] or "").upper(), float(match[3]) if match[3] else DEFAULT_LEAD)


def _name(text: str) -> str | None:
    try:
        number = signal.Signals(int(text)) if text.isdecimal() else signal.Signals[f"SIG{text}"]
    except (KeyError, ValueError):
        return None
    return number.name.removeprefix("SIG")
