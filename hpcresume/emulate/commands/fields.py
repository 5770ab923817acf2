"""What squeue, sacct and scontrol say about a job, field by field. Pure but for the clock."""

from __future__ import annotations

import grp
import os
import time

from hpcresume.emulate.hostlist import compress, runs
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.slurm_time import limit_text, stamp, used_text
from hpcresume.io.users import user_name

__all__ = ["STATES", "array_text", "group_name", "job_fields", "node_or_reason", "run_time"]

STATES = {
    "PENDING": "PD",
    "RUNNING": "R",
    "SUSPENDED": "S",
    "COMPLETED": "CD",
    "CANCELLED": "CA",
    "FAILED": "F",
    "TIMEOUT": "TO",
    "NODE_FAIL": "NF",
    "PREEMPTED": "PR",
    "BOOT_FAIL": "BF",
    "DEADLINE": "DL",
    "OUT_OF_MEMORY": "OOM",
    "COMPLETING": "CG",
    "CONFIGURING": "CF",
    "RESIZING": "RS",
    "RESV_DEL_HOLD": "RD",
    "REQUEUED": "RQ",
    "REQUEUE_FED": "RF",
    "REQUEUE_HOLD": "RH",
    "REVOKED": "RV",
    "SIGNALING": "SI",
    "SPECIAL_EXIT": "SE",
    "STAGE_OUT": "SO",
    "STOPPED": "ST",
}
"""State → code (squeue(1), JOB STATE CODES), in the order in which squeue lists them."""


def run_time(job: Job, now: float) -> float:
    """Seconds of the attempt that runs, or of the last one."""
    if job.start is None:
        return 0.0
    return max(0.0, (now if job.running else job.end or now) - job.start)


def node_or_reason(job: Job) -> str:
    """The NODELIST(REASON) of squeue."""
    if job.running or job.state in ("COMPLETED", "CANCELLED", "PREEMPTED"):
        return compress(job.nodes)
    return f"({job.reason})" if job.reason != "None" or job.state != "PENDING" else "(None)"


def group_name() -> str:
    """The group's name, or the number where there is none."""
    try:
        return grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        return str(os.getgid())


def array_text(tasks: list[int], limit: int) -> str:
    """Waiting tasks of an array on one line: `[3-7,9%2]`."""
    parts = [str(low) if low == high else f"{low}-{high}" for low, high in runs(sorted(tasks))]
    return f"[{','.join(parts)}{f'%{limit}' if limit else ''}]"


def job_fields(job: Job, shown_id: str = "") -> dict[str, str]:
    """Every field that the commands print, by squeue's long name."""
    now = time.time()
    used = run_time(job, now)
    request = job.request
    nodes = len(job.nodes) if job.nodes else request.least_nodes
    cpus = sum(job.allocation.cpus) if job.allocation else job.ntasks * request.cpus_of_a_task
    left = None if job.limit is None else max(0.0, job.limit - used)
    shown = request.shown
    return {
        "account": shown.get("account", "(null)"),
        "arrayjobid": str(job.array if job.array is not None else job.number),
        "arraytaskid": "N/A" if job.task is None else str(job.task),
        "batchhost": job.nodes[0] if job.nodes else "n/a",
        "command": request.command,
        "comment": shown.get("comment", "(null)"),
        "cpus": str(cpus),
        "dependency": _dependency(job),
        "endtime": stamp(job.end, "N/A"),
        "exit_code": f"{job.exit_code}:{job.killed_by}",
        "features": shown.get("constraint", "(null)"),
        "group": str(os.getgid()),
        "jobarrayid": shown_id or job.id,
        "jobid": str(job.number),
        "name": request.name,
        "nice": str(request.nice),
        "nodelist": compress(job.nodes) if job.nodes and job.start is not None else "",
        "numcpus": str(cpus),
        "numnodes": str(nodes),
        "numtasks": str(job.ntasks),
        "minmemory": shown.get("mem", shown.get("mem-per-cpu", "0")),
        "partition": job.partition.name,
        "priority": f"{job.priority / 2**32:.14f}",
        "prioritylong": str(0 if job.held else job.priority),
        "qos": shown.get("qos", "(null)"),
        "reason": job.reason,
        "reasonlist": node_or_reason(job),
        "requeue": str(int(job.requeue)),
        "restartcnt": str(job.restarts if job.restarts_shown is None else job.restarts_shown),
        "starttime": stamp(job.start if job.start is not None else job.begin, "N/A"),
        "state": job.state,
        "statecompact": STATES[job.state],
        "stderr": job.error(),
        "stdout": job.output(),
        "submittime": stamp(job.submitted),
        "timeleft": "UNLIMITED" if left is None else used_text(left),
        "timelimit": limit_text(job.limit, full=False),
        "timelimitfull": limit_text(job.limit),
        "timeused": used_text(used),
        "timeusedfull": limit_text(used),
        "tres-per-node": shown.get("gpus-per-node", shown.get("gres", "N/A")),
        "userid": str(os.getuid()),
        "username": user_name(),
        "workdir": request.directory,
        "wckey": shown.get("wckey", "(null)"),
        "admin_comment": shown.get("admin-comment", "(null)"),
        "batchflag": str(1 + min(job.restarts, 1)),
        "cluster": "emulated",
        "contiguous": "0",
        "cpus-per-task": "N/A" if request.cpus_per_task is None else str(request.cpus_per_task),
        "eligibletime": stamp(job.begin or job.submitted),
        "excnodes": compress([*request.exclude, *job.exclude]),
        "feature": shown.get("constraint", "(null)"),
        "gres": shown.get("gpus-per-node", shown.get("gres", "N/A")),
        "groupid": str(os.getgid()),
        "groupname": group_name(),
        "licenses": shown.get("licenses", "(null)"),
        "maxnodes": str(request.nodes_most or nodes),
        "mincpus": str((request.ntasks_per_node or 1) * request.cpus_of_a_task),
        "mintmpdisk": "0",
        "oversubscribe": "NO" if request.exclusive else "OK",
        "preempttime": stamp(job.preempted_at, "N/A"),
        "reqnodes": compress(request.nodelist),
        "reservation": shown.get("reservation", "(null)"),
        "schednodes": "(null)",
        "sct": "*:*:*",
        "stdin": request.input or "/dev/null",
        "tres-alloc": f"cpu={cpus},node={nodes},billing={cpus}" if job.nodes else "",
    }


def _dependency(job: Job) -> str:
    """What it still waits for, and whether that can still come (squeue(1), %E)."""
    stands = {True: "failed", False: "unfulfilled"}
    between = "?" if job.any_dependency else ","
    shown = (f"{each}({stands[each in job.failed_dependencies]})" for each in job.dependency)
    return (between.join(shown) or "(null)") if job.state == "PENDING" else "(null)"
