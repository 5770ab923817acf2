"""Reading the text of `scontrol --oneliner show job`. Pure: text in, frozen value out.

The record is `Key=value Key=value …`, values unquoted. A user's job name may hold spaces, newlines and whole
fake fields ("x JobState=FAILED"), and so may Comment, Command and WorkDir. What is trusted here stands between
JobName and Command, and of those two ends JobName is cut off by its known text, never guessed.
"""

from __future__ import annotations

import re
import time

from hpcresume.errors import SlurmError
from hpcresume.policy.job_facts import JobFacts

__all__ = ["parse_job", "parse_span", "parse_time"]

_MAX_TEXT = 1 << 20
_OWNER = re.compile(r"\sUserId=[^=()]{0,256}\(\d+\)\s+GroupId=[^=()]{0,256}\(\d+\)\s")
"""Names of groups may hold spaces ("domain users")."""
_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z_/:]*)=(\S*)")


def parse_job(text: str, job_id: str, *, name: str | None = None, asked_at: float = 0.0) -> JobFacts:
    """The facts of one job.

    Args:
        text: what scontrol printed.
        job_id: the job that was asked for, `12` or `12_3`.
        name: the job's name, where known. Without it a record in which a name could pose as fields is refused.
        asked_at: our clock when Slurm answered, seconds since the epoch.

    Raises:
        SlurmError: the text is no such record, is of another job, or is ambiguous.
    """
    fields = _trusted_fields(text[:_MAX_TEXT], job_id, name)
    state = fields.get("JobState", "")
    if not re.fullmatch(r"[A-Z_]{2,40}", state):
        raise SlurmError("scontrol's answer has no JobState", where=f"job {job_id}")
    return JobFacts(
        state=state,
        reason=fields.get("Reason", ""),
        requeueable={"1": True, "0": False}.get(fields.get("Requeue", "")),
        restarts=_count(fields.get("Restarts", "")),
        start=parse_time(fields.get("StartTime", "")),
        end=parse_time(fields.get("EndTime", "")),
        preempted_at=parse_time(fields.get("PreemptTime", "")),
        partition=_text(fields.get("Partition", "")),
        excluded=_text(fields.get("ExcNodeList", "")),
        required=_text(fields.get("ReqNodeList", "")),
        tasks=_count(fields.get("NumTasks", "")) or None,
        cpus=_count(fields.get("NumCPUs", "")) or None,
        exit_code=_exit_code(fields.get("ExitCode", "")),
        killed_by=_exit_signal(fields.get("ExitCode", "")),
        limit=parse_span(fields.get("TimeLimit", "")),
        least=parse_span(fields.get("TimeMin", "")),
        asked_at=asked_at,
    )


def parse_time(text: str) -> float | None:
    """Slurm's `2024-05-06T07:08:09` in this machine's time zone, as seconds since the epoch; None when unset."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", text):
        return None
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def parse_span(text: str) -> float | None:
    """Slurm's `1-12:00:00` or `00:30:00` in seconds; None for UNLIMITED, N/A and what is not understood."""
    match = re.fullmatch(r"(?:([0-9]{1,5})-)?([0-9]{1,2}):([0-9]{2}):([0-9]{2})", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _trusted_fields(text: str, job_id: str, name: str | None) -> dict[str, str]:
    head = re.match(
        r"\s*JobId=(\d+)(?:\s+ArrayJobId=(\d+)\s+ArrayTaskId=(\S+)(?:\s+ArrayTaskThrottle=\d+)?)?\s+JobName=", text
    )
    if head is None or not _is_job(head, job_id):
        raise SlurmError("scontrol's answer is not this job's record", where=f"job {job_id}")
    rest = text[head.end() :]
    if name is not None and _OWNER.match(rest, len(name)) and rest.startswith(name):
        rest = rest[len(name) :]
    else:
        rest = _after_unknown_name(rest, job_id)
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(rest):
        if match[1] == "Command":
            break
        fields.setdefault(match[1], match[2])
    return fields


def _is_job(head: re.Match[str], job_id: str) -> bool:
    return job_id in (head[1], f"{head[2]}_{head[3]}")


def _after_unknown_name(rest: str, job_id: str) -> str:
    owners = list(_OWNER.finditer(rest))
    if len(owners) != 1:
        raise SlurmError(
            "scontrol's answer can be read in more than one way", where=f"job {job_id}, {len(owners)} owners in it"
        )
    return rest[owners[0].start() :]


def _text(text: str) -> str:
    return "" if text == "(null)" else text


def _exit_code(text: str) -> int | None:
    """Of "77:0": the code, and behind the colon the signal that ended it."""
    match = re.fullmatch(r"([0-9]{1,3}):[0-9]{1,3}", text)
    return int(match[1]) if match else None


def _exit_signal(text: str) -> int | None:
    """Of "0:10": the signal that ended the batch script."""
    match = re.fullmatch(r"[0-9]{1,3}:([0-9]{1,3})", text)
    return int(match[1]) or None if match else None


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0
