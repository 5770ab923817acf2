"""What the fake Slurm answers: the commands and options that hpcresume itself uses, in the words of Slurm 22.05."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hpcresume.config.slurm_options import parse_time_limit, slurm_time
from hpcresume.slurm.commands import Answer
from hpcresume.testing.fake_queue import FakeJob, FakeQueue

__all__ = ["environment_of", "run_command"]


def environment_of(slurm: FakeQueue, job: FakeJob) -> dict[str, str]:
    """The SLURM_* variables that a running job's batch script finds."""
    tasks = len(job.nodes) * job.tasks_per_node
    found = {
        "SLURM_JOB_ID": job.id,
        "SLURM_JOB_NAME": job.name,
        "SLURM_JOB_PARTITION": job.partition.split(",")[0],
        "SLURM_JOB_NODELIST": ",".join(job.nodes),
        "SLURM_JOB_NUM_NODES": str(len(job.nodes)),
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(job.tasks_per_node),
        "SLURM_TASKS_PER_NODE": f"{job.tasks_per_node}(x{len(job.nodes)})",
        "SLURMD_NODENAME": job.nodes[0] if job.nodes else "",
        "SLURM_JOB_START_TIME": str(int(slurm.now)),
        "SLURM_SUBMIT_DIR": "/home/user",
    }
    export = next((word for word in job.options if word.startswith("--export=")), "").partition("=")[2]
    found |= dict(word.partition("=")[::2] for word in export.split(",") if "=" in word)
    return found | ({"SLURM_RESTART_COUNT": str(job.restarts)} if job.restarts else {})


def run_command(slurm: FakeQueue, words: list[str]) -> Answer:
    """Answer one command."""
    verb = " ".join(words[:2]) if words[0] == "scontrol" else words[0]
    if words[:2] == ["scontrol", "--oneliner"]:
        verb, words = "scontrol show", [words[0], *words[2:]]
    action = _COMMANDS.get(verb)
    return action(slurm, words) if action is not None else _failed(f"fake Slurm knows no {' '.join(words[:3])}")


def _failed(text: str, code: int = 1) -> Answer:
    return Answer(code, "", text + "\n")


def _options(words: Sequence[str]) -> dict[str, str]:
    return dict(word.lstrip("-").partition("=")[::2] for word in words if word.startswith("-"))


# ---- scontrol


def _show(slurm: FakeQueue, words: list[str]) -> Answer:
    entity, name = words[2], words[3] if len(words) > 3 else ""
    if entity == "job":
        job = slurm.jobs.get(name)
        return Answer(0, _record(job), "") if job is not None else _failed("slurm_load_jobs error: Invalid job id")
    if entity == "partition" and name in slurm.partitions:
        return Answer(0, f"PartitionName={name} MaxTime={slurm.longest.get(name, 'UNLIMITED')} State=UP\n", "")
    if entity == "hostnames":
        return Answer(0, "".join(f"{each}\n" for each in _expand(name)), "")
    if entity == "config":
        return Answer(0, f"JobRequeue              = {int(slurm.job_requeue)}\n", "")
    return _failed(f"invalid entity:{entity} for keyword:show")


def _record(job: FakeJob) -> str:
    """One line of `scontrol --oneliner show job`."""
    fields = {
        "JobId": job.id,
        "JobName": job.name,
        "UserId": "user(1000)",
        "GroupId": "group(1000)",
        "JobState": job.state,
        "Reason": (job.held or job.reason).replace(" ", "_"),
        "Requeue": str(int(job.requeue)),
        "Restarts": str(job.restarts),
        "ExitCode": f"{job.exit_code or 0}:0",
        "StartTime": _time(job.start),
        "EndTime": _time(job.end),
        "PreemptTime": _time(job.preempted_at, "None"),
        "Partition": job.partition,
        "ReqNodeList": ",".join(job.required) or "(null)",
        "ExcNodeList": ",".join(job.excluded) or "(null)",
        "NumNodes": str(len(job.nodes)) if job.nodes else f"{job.needs[0]}-{job.needs[1]}",
        "NumCPUs": str(len(job.nodes) * job.tasks_per_node),
        "NumTasks": str(len(job.nodes) * job.tasks_per_node),
        "Command": "/job.sh",
    }
    return " ".join(f"{key}={value}" for key, value in fields.items()) + "\n"


def _time(seconds: float | None, absent: str = "Unknown") -> str:
    return absent if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))


def _requeue(slurm: FakeQueue, words: list[str]) -> Answer:
    job = slurm.jobs.get(words[2])
    if job is None:
        return _failed(f"Invalid job id specified for job {words[2]}")
    refusal = slurm.requeue(job, hold=words[1] == "requeuehold")
    return _failed(f"{refusal} for job {job.id}") if refusal else Answer(0, "", "")


def _hold(slurm: FakeQueue, words: list[str]) -> Answer:
    job = slurm.jobs.get(words[2])
    if job is None or job.over:
        return _failed(f"Job has already finished for job {words[2]}")
    job.held = "JobHeldUser" if words[1] == "hold" else ""
    return Answer(0, "", "")


def _update(slurm: FakeQueue, words: list[str]) -> Answer:
    pairs = [word.partition("=")[::2] for word in words[2:]]
    job = slurm.jobs.get(dict(pairs).get("JobId", ""))
    if job is None:
        return _failed("Invalid job id specified")
    changes = []
    for key, value in pairs:
        if key == "JobId":
            continue
        if job.over or (key != "Comment" and job.state == "RUNNING"):
            words_of = "Job has already finished" if job.over else "Job is no longer pending execution"
            return _failed(f"{words_of} for job {job.id}")
        refusal = _check(slurm, key, value)
        if refusal:
            return _failed(f"{refusal} for job {job.id}")
        changes.append((key, value))
    for key, value in changes:
        _set(slurm, job, key, value)
    return Answer(0, "", "")


def _check(slurm: FakeQueue, key: str, value: str) -> str:
    if key == "ExcNodeList" and any(name not in slurm.nodes for name in _expand(value)):
        return "Invalid node name specified"
    if key == "Partition" and any(name not in slurm.partitions for name in value.split(",")):
        return "Invalid partition name specified"
    return "" if key in _SETTABLE else "Update of this parameter is not supported"


_SETTABLE = frozenset(
    {"Comment", "Dependency", "ExcNodeList", "StartTime", "Partition", "NumNodes", "NumTasks", "NumCPUs", "TimeLimit"}
)


def _set(slurm: FakeQueue, job: FakeJob, key: str, value: str) -> None:
    if key == "Comment":
        job.comment = value
    elif key == "ExcNodeList":
        job.excluded = tuple(_expand(value))
    elif key == "StartTime":
        job.begin = _instant(slurm, value)
    elif key == "Partition":
        job.partition = value
    elif key == "Dependency":
        kind, _, other = value.partition(":")
        job.depends = (kind, other)
    elif key == "TimeLimit":
        job.limit = float(parse_time_limit(value) or 0) or None
    elif key == "NumNodes":
        least, _, most = value.partition("-")
        job.needs = (int(least), int(most or least))


def _instant(slurm: FakeQueue, text: str) -> float:
    match = re.fullmatch(r"now\+(\d+)", text)
    return slurm.now + float(match[1]) if match else slurm.now


def _write(slurm: FakeQueue, words: list[str]) -> Answer:
    job = slurm.jobs.get(words[3])
    return Answer(0, job.script, "") if job is not None else _failed("job script retrieval failed: Invalid job id")


# ---- the others


def _squeue(slurm: FakeQueue, words: list[str]) -> Answer:
    options = _options(words)
    if "jobs" not in options:
        found = [job for job in map(slurm.seen, slurm.jobs) if job is not None]
    elif (job := slurm.seen(options["jobs"])) is not None:
        found = [job]
    else:
        return _failed("slurm_load_jobs error: Invalid job id specified")
    return Answer(0, "".join(_row(job, options.get("format", "%T")) for job in found), "")


def _row(job: FakeJob, form: str) -> str:
    given = dict(word.lstrip("-").partition("=")[::2] for word in job.options)
    known = {
        "%T": job.state, "%i": job.id, "%F": job.id, "%k": job.comment or "(null)", "%r": job.held or job.reason,
        "%Z": job.directory, "%o": job.command, "%x": ",".join(job.excluded), "%n": ",".join(job.required),
        "%f": given.get("constraint", "(null)"), "%W": given.get("licenses", "(null)"), "%d": given.get("tmp", "0"),
        "%y": given.get("nice", "0"), "%w": "(null)", "%b": given.get("gres", "N/A"), "%v": "(null)", "%h": "OK",
        "%l": "UNLIMITED" if job.limit is None else slurm_time(job.limit),
    }  # fmt: skip
    return re.sub("%[A-Za-z]", lambda match: known.get(match[0], ""), form) + "\n"


def _sinfo(slurm: FakeQueue, words: list[str]) -> Answer:
    options = _options(words)
    wanted = _expand(options["nodes"]) if "nodes" in options else list(slurm.nodes)
    lines = []
    for node in (slurm.nodes[name] for name in wanted if name in slurm.nodes):
        state = "down*" if not node.up else "idle" if node.used_by is None else "allocated"
        lines.append(f"{node.name}|{state}|{node.kind}" if "|" in options.get("format", "") else f"{node.name} {state}")
    return Answer(0, "".join(f"{line}\n" for line in lines), "")


def _sbatch(slurm: FakeQueue, words: list[str]) -> Answer:
    options = _options(words[1:-1])
    kind, _, other = options.get("dependency", "").partition(":")
    least, _, most = options.get("nodes", "1").partition("-")
    job = slurm.submit(
        Path(words[-1]).read_text(),
        name=options.get("job-name", "job"),
        nodes=(int(least), int(most or least)),
        tasks_per_node=int(options.get("ntasks-per-node", "1")),
        partition=options.get("partition"),
        begin=_instant(slurm, options["begin"]) if "begin" in options else 0.0,
        depends=(kind, other) if kind else None,
        options=words[1:-1],
        directory=options.get("chdir", "/home/user"),
        command=words[-1],
        limit=parse_time_limit(options["time"]) if "time" in options else None,
        excluded=_expand(options.get("exclude", "")),
        comment=options.get("comment", ""),
    )
    return Answer(0, f"{job.id}\n", "")


def _scancel(slurm: FakeQueue, words: list[str]) -> Answer:
    job = slurm.jobs.get(words[-1])
    if job is None:
        return _failed(f"scancel: error: Kill job error on job id {words[-1]}: Invalid job id specified")
    if _options(words).get("state", "").upper() in ("", job.state) and not (job.leaving and "state" in _options(words)):
        slurm.cancel(job)
    return Answer(0, "", "")


def _expand(text: str) -> list[str]:
    """`n[1-3,7],m2` as names."""
    names = []
    for head, ranges, single in re.findall(r"([A-Za-z0-9_-]+)\[([^\]]+)\]|([A-Za-z0-9_.-]+)", text):
        if single:
            names.append(single)
            continue
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            names += [f"{head}{i}" for i in range(int(first), int(last or first) + 1)]
    return names


_COMMANDS: Mapping[str, Callable[[FakeQueue, list[str]], Answer]] = {
    "scontrol show": _show,
    "scontrol requeue": _requeue,
    "scontrol requeuehold": _requeue,
    "scontrol hold": _hold,
    "scontrol release": _hold,
    "scontrol update": _update,
    "scontrol write": _write,
    "squeue": _squeue,
    "sinfo": _sinfo,
    "sbatch": _sbatch,
    "scancel": _scancel,
}
