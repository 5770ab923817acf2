"""sacct: jobs and their steps, also those that are over (sacct(1))."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence

from hpcresume.emulate.commands.call import Call, Reply
from hpcresume.emulate.commands.fields import array_text, job_fields, run_time
from hpcresume.emulate.commands.filters import by_option, during, users_of
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.hostlist import compress
from hpcresume.emulate.jobs import Job, Step
from hpcresume.emulate.option_tables import SACCT
from hpcresume.emulate.result import AttemptEnd
from hpcresume.emulate.slurm_time import limit_text, parse_past, stamp
from hpcresume.io.users import user_name

__all__ = ["sacct"]

DEFAULT = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
BRIEF = "JobID,State,ExitCode"
WIDTHS = {"JobID": 12, "JobName": 10, "Partition": 10, "Account": 10, "AllocCPUS": 10, "State": 10, "ExitCode": 8,
          "NodeList": 15, "Elapsed": 10, "Start": 19, "End": 19, "Submit": 19, "NNodes": 8, "NTasks": 8, "User": 9,
          "Restarts": 8, "Reason": 22, "WorkDir": 20, "Timelimit": 10}  # fmt: skip
_FIELDS = (*WIDTHS, "JobIDRaw", "NCPUS", "DerivedExitCode", "Comment", "Cluster", "UID", "ElapsedRaw", "TimelimitRaw",
           "QOS", "Eligible", "Priority", "SubmitLine", "ReqCPUS", "ReqNodes", "AllocNodes", "MaxRSS", "Suspended",
           "StdOut", "StdErr")  # fmt: skip
_NAMES = {name.lower(): name for name in _FIELDS}
_FORMAT = re.compile(r"([A-Za-z]+)(?:%(-?[0-9]{1,4}))?")


def sacct(call: Call, controller: Controller) -> Reply:
    """List jobs as an accounting database would."""
    try:
        pairs, _ = read_options(call.words, SACCT, program="sacct", permute=True)
    except OptionError as error:
        return Reply(err=error.text, code=1)
    options = {name: value or "" for name, value in pairs}
    if "version" in options:
        return Reply(out=f"slurm {controller.settings.slurm}\n")
    try:
        tests = _tests(options)
    except OptionError as error:
        return Reply(err=error.text, code=1)
    if "helpformat" in options:
        return Reply(out="".join(f"{name}\n" for name in sorted(_FIELDS)))
    wanted = options.get("format") or (BRIEF if "brief" in options else DEFAULT)
    columns = []
    for item in filter(None, wanted.split(",")):
        match = _FORMAT.fullmatch(item)
        name = _NAMES.get(match[1].lower()) if match else None
        if match is None or name is None:
            return Reply(err=f'sacct: fatal: Invalid field requested: "{item}"\n', code=1)
        columns.append((name, int(match[2]) if match[2] else WIDTHS.get(name, 12)))
    jobs = [job for job in _select(pairs, options, controller) if all(test(job) for test in tests)]
    rows = _rows(jobs, steps="allocations" not in options, duplicates="duplicates" in options)
    if "state" in options:
        states = {text.upper() for text in options["state"].split(",")}
        rows = [row for row in rows if row["State"].split()[0] in states or row["code"] in states]
    return Reply(out=_print(columns, rows, options))


def _tests(options: dict[str, str]) -> list[Callable[[Job], bool]]:
    """What a job must fulfil to be listed.

    Raises:
        OptionError: a time or a user that is none.
    """
    users = users_of(options.get("user") or options.get("uid") or str(os.getuid()))
    if users.unknown:
        raise OptionError(f"sacct: error: Invalid user id: {users.unknown}\n")
    now = time.time()
    start, end = (_moment(options.get(name), now) for name in ("starttime", "endtime"))
    if start is not None and start > (now if end is None else end):
        until = stamp(now if end is None else end)
        raise OptionError(f"sacct: error: Start time ({stamp(start)}) requested is after end time ({until}).\n")
    return [lambda _: users.mine, by_option(options, "account", "qos"), during(start, end)]


def _moment(text: str | None, now: float) -> float | None:
    try:
        return None if text is None else parse_past(text, now)
    except ValueError:
        raise OptionError(f"Invalid time specification (pos=0): {text}\n") from None


def _select(pairs: Sequence[tuple[str, str | None]], options: dict[str, str], controller: Controller) -> list[Job]:
    numbers = [n for name, value in pairs if name == "jobs" for n in (value or "").split(",")]
    jobs = (
        [j for n in numbers for j in controller.find(n.partition(".")[0])]
        if numbers
        else list(controller.jobs.values())
    )
    unique = list({job.number: job for job in jobs}.values())
    if "name" in options:
        unique = [job for job in unique if job.request.name in options["name"].split(",")]
    if "partition" in options:
        unique = [job for job in unique if job.partition.name in options["partition"].split(",")]
    return unique


def _rows(jobs: Sequence[Job], *, steps: bool, duplicates: bool) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    waiting: dict[int, list[int]] = {}
    first: dict[int, Job] = {}
    for job in jobs:
        if job.array is not None and job.state == "PENDING" and not job.restarts:
            waiting.setdefault(job.array, []).append(job.task or 0)
            first.setdefault(job.array, job)
            continue
        if duplicates:
            rows += [_earlier(job, end) for end in job.attempts if end.requeued]
        rows.append(_row(job))
        if steps and job.start is not None:
            rows.append(_batch_row(job))
            rows += [_step_row(job, step) for step in job.steps]
    for array, tasks in waiting.items():
        plan = first[array].request.array
        text = f"{array}_{array_text(tasks, plan.limit if plan is not None else 0)}"
        rows.append({**_row(first[array]), "JobID": text})
    return rows


def _row(job: Job) -> dict[str, str]:
    fields = job_fields(job)
    used = run_time(job, time.time())
    state = "RUNNING" if job.state == "COMPLETING" else job.state
    if state == "CANCELLED":
        state = f"CANCELLED by {fields['userid']}"
    return {
        "code": fields["statecompact"],
        "JobID": job.id,
        "JobIDRaw": str(job.number),
        "JobName": job.request.name,
        "Partition": job.partition.name,
        "Account": job.request.shown.get("account", ""),
        "AllocCPUS": fields["numcpus"] if job.nodes else "0",
        "AllocNodes": str(len(job.nodes)),
        "NCPUS": fields["numcpus"],
        "ReqCPUS": fields["numcpus"],
        "State": state,
        "ExitCode": fields["exit_code"],
        "DerivedExitCode": fields["exit_code"],
        "NodeList": compress(job.nodes) if job.nodes else "None assigned",
        "Elapsed": limit_text(used),
        "ElapsedRaw": str(int(used)),
        "Start": stamp(job.start),
        "End": "Unknown" if job.running else stamp(job.end),
        "Submit": stamp(job.submitted),
        "Eligible": stamp(job.begin or job.submitted),
        "NNodes": fields["numnodes"],
        "ReqNodes": fields["numnodes"],
        "User": user_name(),
        "UID": fields["userid"],
        "Restarts": str(job.restarts),
        "Reason": job.reason,
        "WorkDir": job.request.directory,
        "Timelimit": limit_text(job.limit),
        "TimelimitRaw": "UNLIMITED" if job.limit is None else str(int(job.limit // 60)),
        "Comment": job.request.shown.get("comment", ""),
        "Cluster": "emulated",
        "QOS": job.request.shown.get("qos", "normal"),
        "Priority": str(job.priority),
        "SubmitLine": f"sbatch {job.request.command}",
        "StdOut": job.output(),
        "StdErr": job.error(),
        "Suspended": "00:00:00",
    }


def _earlier(job: Job, end: AttemptEnd) -> dict[str, str]:
    """A former start of a job that came back."""
    code, killed = (end.exit_code, 0) if end.exit_code < 128 else (0, end.exit_code - 128)
    return {
        **_row(job),
        "State": end.state,
        "code": "RQ",
        "ExitCode": f"{code}:{killed}",
        "Start": stamp(end.start),
        "End": stamp(end.end),
        "Elapsed": limit_text(end.end - end.start),
        "ElapsedRaw": str(int(end.end - end.start)),
    }


def _batch_row(job: Job) -> dict[str, str]:
    row = _row(job)
    return {
        **row,
        "JobID": f"{job.id}.batch",
        "JobIDRaw": f"{job.number}.batch",
        "JobName": "batch",
        "Partition": "",
        "User": "",
        "Timelimit": "",
        "NNodes": "1",
        "NTasks": "1",
        "NodeList": job.nodes[0] if job.nodes else "",
        "State": row["State"].split()[0],
    }


def _step_row(job: Job, step: Step) -> dict[str, str]:
    end = step.end
    state = "RUNNING" if end is None else "CANCELLED" if step.cancelled else "FAILED" if step.exit_code else "COMPLETED"
    code, killed = (step.exit_code, 0) if step.exit_code < 128 else (0, step.exit_code - 128)
    used = (time.time() if end is None else end) - step.start
    return {
        **_batch_row(job),
        "JobID": f"{job.id}.{step.number}",
        "JobIDRaw": f"{job.number}.{step.number}",
        "JobName": step.name,
        "NNodes": str(len(step.nodes)),
        "NTasks": str(sum(step.tasks)),
        "NodeList": compress(step.nodes),
        "State": state,
        "code": {"RUNNING": "R", "FAILED": "F", "CANCELLED": "CA"}.get(state, "CD"),
        "ExitCode": f"{code}:{killed}",
        "Start": stamp(step.start),
        "End": stamp(end),
        "Elapsed": limit_text(used),
        "ElapsedRaw": str(int(used)),
    }


def _print(columns: Sequence[tuple[str, int]], rows: Sequence[dict[str, str]], options: dict[str, str]) -> str:
    header = "noheader" not in options
    if "parsable" in options or "parsable2" in options:
        between = options.get("delimiter", "|")
        tail = between if "parsable" in options else ""
        lines = [[name for name, _ in columns]] if header else []
        lines += [[row.get(name, "") for name, _ in columns] for row in rows]
        return "".join(between.join(line) + tail + "\n" for line in lines)
    lines = [[name for name, _ in columns], ["-" * abs(width) for _, width in columns]] if header else []
    lines += [[_cut(row.get(name, ""), abs(width)) for name, width in columns] for row in rows]
    return "".join(
        " ".join(t.rjust(w) if w > 0 else t.ljust(-w) for t, (_, w) in zip(line, columns, strict=True)) + " \n"
        for line in lines
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "+"
