"""squeue: the queue as a table (squeue(1))."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpcresume.emulate.commands.call import Call, Reply
from hpcresume.emulate.commands.fields import STATES, array_text, job_fields
from hpcresume.emulate.commands.filters import by_option, users_of
from hpcresume.emulate.commands.steps import STEP_LETTERS, STEPS, step_rows
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.getopt_long import OptionError, read_options
from hpcresume.emulate.hostlist import expand
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.option_tables import SQUEUE
from hpcresume.io.users import user_name

__all__ = ["column_texts", "squeue", "unknown_job"]

DEFAULT = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
START = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R"
LONG = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R"
MOST_WIDE = 1000

LETTERS = {
    "A": ("JOBID", "jobid"), "a": ("ACCOUNT", "account"), "B": ("EXEC_HOST", "batchhost"), "C": ("CPUS", "cpus"),
    "D": ("NODES", "numnodes"), "E": ("DEPENDENCY", "dependency"), "F": ("ARRAY_JOB_ID", "arrayjobid"),
    "K": ("ARRAY_TASK_ID", "arraytaskid"), "L": ("TIME_LEFT", "timeleft"), "M": ("TIME", "timeused"),
    "N": ("NODELIST", "nodelist"), "P": ("PARTITION", "partition"), "Q": ("PRIORITY", "prioritylong"),
    "R": ("NODELIST(REASON)", "reasonlist"), "S": ("START_TIME", "starttime"), "T": ("STATE", "state"),
    "U": ("UID", "userid"), "V": ("SUBMIT_TIME", "submittime"), "W": ("LICENSES", "licenses"),
    "Z": ("WORK_DIR", "workdir"), "b": ("TRES_PER_NODE", "tres-per-node"), "e": ("END_TIME", "endtime"),
    "f": ("FEATURES", "features"), "g": ("GROUP", "group"), "i": ("JOBID", "jobarrayid"), "j": ("NAME", "name"),
    "k": ("COMMENT", "comment"), "l": ("TIME_LIMIT", "timelimit"), "m": ("MIN_MEMORY", "minmemory"),
    "o": ("COMMAND", "command"), "p": ("PRIORITY", "priority"), "q": ("QOS", "qos"), "r": ("REASON", "reason"),
    "n": ("REQ_NODES", "reqnodes"), "x": ("EXC_NODES", "excnodes"), "Y": ("SCHEDNODES", "schednodes"),
    "c": ("MIN_CPUS", "mincpus"), "h": ("OVER_SUBSCRIBE", "oversubscribe"), "v": ("RESERVATION", "reservation"),
    "d": ("MIN_TMP_DISK", "mintmpdisk"), "G": ("GROUP", "groupid"), "O": ("CONTIGUOUS", "contiguous"),
    "z": ("S:C:T", "sct"),
    "t": ("ST", "statecompact"), "u": ("USER", "username"), "w": ("WCKEY", "wckey"), "y": ("NICE", "nice"),
}  # fmt: skip
"""Letter of --format → (heading, field)."""
_HEADINGS = {
    "restartcnt": "RESTART_COUNT", "numtasks": "TASKS", "exit_code": "EXIT_CODE", "requeue": "REQUEUE",
    "stdout": "STDOUT", "stderr": "STDERR", "command": "COMMAND", "numcpus": "CPUS", "stdin": "STDIN",
    "admin_comment": "ADMIN_COMMENT", "batchflag": "BATCH_FLAG", "cluster": "CLUSTER",
    "cpus-per-task": "CPUS_PER_TASK", "eligibletime": "ELIGIBLE_TIME",
    "gres": "TRES_PER_NODE", "groupname": "GROUP", "maxnodes": "MAX_NODES", "preempttime": "PREEMPT_TIME",
    "feature": "FEATURES", "tres-alloc": "TRES_ALLOC",
}  # fmt: skip
_SPEC = re.compile(r"%(\.?)([0-9]{0,4})([A-Za-z])")


@dataclass(frozen=True)
class _Column:
    heading: str
    field: str
    width: int = 0
    right: bool = False


def unknown_job() -> Reply:
    """What every command says about a job that does not exist."""
    return Reply(err="slurm_load_jobs error: Invalid job id specified\n", code=1)


def squeue(call: Call, controller: Controller) -> Reply:
    """List jobs."""
    try:
        pairs, _ = read_options(call.words, SQUEUE, program="squeue", permute=True)
        options = {name: value or "" for name, value in pairs}
        if "version" in options:
            return Reply(out=f"slurm {controller.settings.slurm}\n")
        users = users_of(options.get("users") or options.get("user") or str(os.getuid()))
        jobs = _select(options, controller)
    except OptionError as error:
        return Reply(err=error.text, code=error.code)
    if jobs is None:
        return unknown_job()
    jobs = jobs if users.mine else []
    if "json" in options:
        return Reply(out=_json(jobs, controller))
    # Seen on 22.05: an unknown user or column is said, and the rest is printed all the same, with exit code 0.
    errors = f"squeue: error: Invalid user: {users.unknown}\n" if users.unknown else ""
    environ, header = call.environ, "noheader" not in options
    if "steps" in options:
        text = _table(options.get("format") or STEPS, step_rows(jobs, options["steps"]), header, STEP_LETTERS)
    elif "Format" in options or ("format" not in options and "SQUEUE_FORMAT2" in environ):
        text, more = _wide(options.get("Format") or environ["SQUEUE_FORMAT2"], jobs, header)
        errors += more
    else:
        usual = START if "start" in options else LONG if "long" in options else DEFAULT
        wanted = options.get("format") or environ.get("SQUEUE_FORMAT") or usual
        text = _table(wanted, _rows(jobs, "array" in options), header)
    if "long" in options and header:
        text = time.strftime("%a %b %d %H:%M:%S %Y\n") + text
    return Reply(out=text, err=errors)


def _select(options: dict[str, str], controller: Controller) -> list[Job] | None:
    """The jobs that the options name; None when one of them does not exist."""
    wanted: list[Job] | None = None
    if "jobs" in options or "job" in options:
        wanted = []
        texts = (options.get("jobs") or options.get("job", "")).split(",")
        for text in texts:
            if not re.fullmatch(r"[0-9]+(_(\[[0-9,%-]+\]|[0-9]+|\*))?", text):
                raise OptionError(f"squeue: error: Invalid job id: {text}\n")
            found = controller.find(text)
            if not found and len(texts) == 1:  # one unknown job among several is passed over in silence (seen on 22.05)
                return None
            wanted += found
    jobs = wanted if wanted is not None else list(controller.jobs.values())
    tests = _tests(options, controller)
    chosen = [job for job in jobs if all(test(job) for test in tests)]
    return sorted(chosen, key=lambda job: (job.state != "PENDING", job.running, -job.partition.tier, job.number))


def _nodes(text: str, controller: Controller) -> set[str]:
    try:
        names = expand(text)
    except ValueError:
        names = (text,)
    for name in names:
        if name not in controller.nodes:
            raise OptionError(f"squeue: error: Invalid node name {name}\n")
    return set(names)


def _tests(options: dict[str, str], controller: Controller) -> list[Callable[[Job], bool]]:
    states = options.get("states", options.get("state"))
    tests: list[Callable[[Job], bool]] = [_by_state("PD" if "start" in options and states is None else states)]
    tests.append(by_option(options, "account", "qos", "licenses", "reservation"))
    if "name" in options:
        names_ = options["name"].split(",")
        tests.append(lambda job: job.request.name in names_)
    if "partition" in options:
        partitions = options["partition"].split(",")
        tests.append(lambda job: job.partition.name in partitions)
    if "nodelist" in options:
        nodes = _nodes(options["nodelist"], controller)
        tests.append(lambda job: job.running and bool(nodes & set(job.nodes)))
    return tests


def _by_state(text: str | None) -> Callable[[Job], bool]:
    if text is None:
        # One that is asked for by its number and just over is no error, but no line either.
        return lambda job: not job.over
    if text.lower() == "all":
        return lambda _: True
    codes = {code: name for name, code in STATES.items()}
    wanted = {codes.get(each.upper(), each.upper()) for each in text.split(",")}
    for each in wanted:
        if each not in STATES:
            listed = ",".join(STATES)
            raise OptionError(
                f"squeue: error: Invalid job state specified: {each.lower()}\n"
                f"squeue: error: Valid job states include: {listed}\n\n"
            )
    return lambda job: job.state in wanted


def _rows(jobs: Sequence[Job], apart: bool) -> list[dict[str, str]]:
    """A line a job; tasks of an array that wait share one unless told otherwise."""
    rows: list[dict[str, str]] = []
    waiting: dict[int, list[Job]] = {}
    for job in jobs:
        if job.array is None or job.state != "PENDING" or apart or job.restarts:
            rows.append(job_fields(job))
        elif job.array in waiting:
            waiting[job.array].append(job)
        else:
            waiting[job.array] = [job]
            rows.append({"array": str(job.array)})
    return [_together(waiting[int(row["array"])]) if "array" in row else row for row in rows]


def _together(jobs: Sequence[Job]) -> dict[str, str]:
    plan = jobs[0].request.array
    tasks = array_text([job.task or 0 for job in jobs], plan.limit if plan is not None else 0)
    fields = job_fields(jobs[0], f"{jobs[0].array}_{tasks}")
    return {**fields, "arraytaskid": tasks.strip("[]")}


def _table(
    text: str, rows: Sequence[Mapping[str, str]], header: bool, letters: Mapping[str, tuple[str, str]] = LETTERS
) -> str:
    matches = list(_SPEC.finditer(text))
    columns, between, end = [], [], 0
    for match in matches:
        between.append(text[end : match.start()])
        end = match.end()
        heading, field = letters.get(match[3], ("", ""))
        columns.append(_Column(heading, field, min(int(match[2] or 0), MOST_WIDE), bool(match[1])))
    tail = text[end:]
    lines = [[column.heading for column in columns]] if header else []
    lines += [[row.get(column.field, "") for column in columns] for row in rows]
    return "".join("".join(b + c for b, c in zip(between, column_texts(columns, line), strict=True)) + tail + "\n"
                   for line in lines)  # fmt: skip


def column_texts(columns: Sequence[_Column], cells: Sequence[str]) -> list[str]:
    """Cells cut and padded to their columns' widths."""
    texts = []
    for column, cell in zip(columns, cells, strict=True):
        cut = cell[: column.width] if column.width else cell
        texts.append(cut.rjust(column.width) if column.right else cut.ljust(column.width))
    return texts


def _wide(text: str, jobs: Sequence[Job], header: bool) -> tuple[str, str]:
    """--Format: `jobid,name:30,state:.10`; the table, and what is said about columns that do not exist."""
    headings = {field: heading for heading, field in LETTERS.values()} | _HEADINGS
    columns, errors = [], ""
    for item in filter(None, text.split(",")):
        name, _, size = item.partition(":")
        field = name.strip().lower()
        if field not in _KNOWN:
            errors += f"squeue: error: Invalid job format specification: {name}\n"
            continue
        width = re.match(r"(\.?)([0-9]*)", size)
        assert width is not None
        columns.append(_Column(headings.get(field, field.upper()), field, int(width[2] or 20), bool(width[1])))
    lines = [[column.heading for column in columns]] if header else []
    lines += [[job_fields(job).get(column.field, "") for column in columns] for job in jobs]
    return "".join("".join(column_texts(columns, line)) + "\n" for line in lines), errors


_KNOWN = {field for _, field in LETTERS.values()} | set(_HEADINGS)


def _json(jobs: Sequence[Job], controller: Controller) -> str:
    """The fields that the same option of 24.11 has; times as whole seconds."""
    major, minor = controller.settings.slurm.split(".")
    listed = []
    for job in jobs:
        listed.append({
            "job_id": job.number,
            "array_job_id": {"set": True, "infinite": False, "number": job.array or 0},
            "array_task_id": {"set": job.task is not None, "infinite": False, "number": job.task or 0},
            "name": job.request.name,
            "user_name": user_name(),
            "partition": job.partition.name,
            "job_state": [job.state],
            "state_reason": job.reason,
            "nodes": job_fields(job)["nodelist"],
            "restart_cnt": job.restarts,
            "requeue": job.requeue,
            "standard_output": job.output(),
            "standard_error": job.error(),
            "current_working_directory": job.request.directory,
            "start_time": {"set": job.start is not None, "infinite": False, "number": int(job.start or 0)},
            "end_time": {"set": job.end is not None, "infinite": False, "number": int(job.end or 0)},
            "submit_time": {"set": True, "infinite": False, "number": int(job.submitted)},
        })  # fmt: skip
    meta = {"slurm": {"version": {"major": major, "minor": minor, "micro": "0"}, "release": f"{major}.{minor}.0"}}
    return json.dumps({"jobs": listed, "meta": meta, "errors": [], "warnings": []}, indent=2) + "\n"
