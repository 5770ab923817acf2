"""What `scontrol update JobId=…` can change of a job, and how it is refused."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError
from hpcresume.emulate.hostlist import expand
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.slurm_time import parse_begin, parse_limit

__all__ = ["change_job"]


class _Refused(Exception):
    """The text stands before `for job N`."""


def change_job(job: Job, values: Mapping[str, str], controller: Controller) -> str:
    """Change a job that is not over; the refusal's text, or "" ."""
    for key, value in values.items():
        change = _CHANGES.get(key)
        if change is None:
            return f"Update of this parameter is not supported: {key}={value}\nRequest aborted\n"
        try:
            change(job, value, controller)
        except _Refused as refused:
            return f"{refused} for job {job.id}\n"
        except ValueError:
            return f"Invalid {key} value: {value}\n"
    return ""


def _set_limit(job: Job, text: str, _controller: Controller) -> None:
    base = job.limit or 0.0
    sign, rest = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    seconds = parse_limit(rest)
    if sign and seconds is not None:
        seconds = max(1.0, base + seconds if sign == "+" else base - seconds)
    job.limit = seconds
    job.warned_of_limit = seconds is None
    if job.running and job.start is not None and job.preempted_at is None:
        job.end = None if seconds is None else job.start + seconds


def _set_requeue(job: Job, text: str, _controller: Controller) -> None:
    if text not in ("0", "1"):
        raise ValueError(text)
    job.requeue = text == "1"


def _set_exclude(job: Job, text: str, controller: Controller) -> None:
    try:
        names = expand(text)
    except ValueError:
        names = (text,)
    if any(name not in controller.nodes for name in names):
        raise _Refused("Invalid node name specified")
    job.exclude = names
    job.request = dataclasses.replace(job.request, exclude=())


def _set_partition(job: Job, text: str, controller: Controller) -> None:
    if text not in controller.partitions:
        raise _Refused("Invalid partition name specified")
    if job.running:
        raise _Refused("Job is no longer pending execution")
    job.partition = controller.partitions[text]


def _set_nodes(job: Job, text: str, _controller: Controller) -> None:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**6):
        raise ValueError(text)
    if job.running:
        raise _Refused("Job is no longer pending execution")
    _replace(job, nodes=int(text), nodes_most=None)


def _set_nice(job: Job, text: str, _controller: Controller) -> None:
    job.priority += job.request.nice - int(text)
    _replace(job, nice=int(text))


def _set_name(job: Job, text: str, _controller: Controller) -> None:
    _replace(job, name=text)


def _set_shown(option: str) -> Callable[[Job, str, Controller], None]:
    return lambda job, text, _: _replace(job, shown={**job.request.shown, option: text})


def _replace(job: Job, **changes: Any) -> None:
    job.request = dataclasses.replace(job.request, **changes)


def _set_begin(job: Job, text: str, _controller: Controller) -> None:
    job.begin = parse_begin(text, time.time())


def _set_priority(job: Job, text: str, _controller: Controller) -> None:
    job.held = "JobHeldUser" if int(text) == 0 else ""
    job.priority = int(text) or job.priority


def _set_dependency(job: Job, text: str, controller: Controller) -> None:
    if job.running:
        raise _Refused("Job is no longer pending execution")
    try:
        controller.wait_for(job, text)
    except OptionError:
        raise _Refused("Job dependency problem") from None


_CHANGES: dict[str, Callable[[Job, str, Controller], None]] = {
    "timelimit": _set_limit,
    "requeue": _set_requeue,
    "excnodelist": _set_exclude,
    "name": _set_name,
    "nice": _set_nice,
    "numnodes": _set_nodes,
    "partition": _set_partition,
    "jobname": _set_name,
    "admincomment": _set_shown("admin-comment"),
    "comment": _set_shown("comment"),
    "starttime": _set_begin,
    "dependency": _set_dependency,
    "priority": _set_priority,
}
