"""The environment of an emulated batch script: what sbatch and slurmd would set. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcresume.emulate.census import MARK, TASK
from hpcresume.emulate.hostlist import compress
from hpcresume.emulate.jobs import Job

__all__ = ["SLURM_CONF", "SOCKET", "Place", "batch_variables", "short_counts"]

_OF_ANOTHER = (
    "SLURM", "SBATCH", "HPCRESUME_LAUNCH", "HPCRESUME_SUPERVISED", "HPCRESUME_NODE",
    "PMIX_", "PMI_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_", "PRTE_LAUNCHED",
)  # fmt: skip
"""Variables that say where the submitting process stood, if that was inside a job."""
SLURM_CONF = "SLURM_CONF"
"""Names a file that no real Slurm command can read, so that one that is installed never asks a real cluster."""
SOCKET = "HPCRESUME_EMULATOR"
"""Path of the controller's socket: by it the stand-ins find their cluster."""


@dataclass(frozen=True)
class Place:
    """Where the cluster lives: its socket, the stand-ins, the job's place for launch directories, and more.

    `configuration` is what SLURM_CONF names.
    """

    token: str
    socket: Path
    programs: Path
    launch_parent: Path
    cluster: str
    slurm: str
    configuration: Path
    mpi_environ: Mapping[str, str]


def short_counts(counts: Sequence[int]) -> str:
    """Slurm's short form of numbers by node: `2(x3),1`."""
    texts: list[str] = []
    for index, count in enumerate(counts):
        if index and counts[index - 1] == count:
            continue
        times = 1
        while index + times < len(counts) and counts[index + times] == count:
            times += 1
        texts.append(f"{count}(x{times})" if times > 1 else str(count))
    return ",".join(texts)


def batch_variables(job: Job, place: Place) -> dict[str, str]:
    """The variables of the batch script (sbatch(1), OUTPUT ENVIRONMENT VARIABLES), the inherited ones included."""
    inherited = job.request.environ
    environ = {k: v for k, v in inherited.items() if k != TASK and not k.startswith(_OF_ANOTHER)}
    path = inherited.get("PATH") or os.defpath
    if str(place.programs) not in path.split(os.pathsep):
        path = f"{place.programs}{os.pathsep}{path}"
    environ |= {
        **place.mpi_environ,
        "PATH": path,
        MARK: f"{place.token}.{job.number}",
        SOCKET: str(place.socket),
        SLURM_CONF: str(place.configuration),
        "HPCRESUME_LAUNCH_PARENT": str(place.launch_parent),
        "HPCRESUME_LAUNCH_DIR": str(place.launch_parent / "batch"),
        "HPCRESUME_NODE": job.nodes[0],
        "PRTE_MCA_prte_default_hostfile": str(place.launch_parent / "hosts"),
        "OMPI_MCA_orte_default_hostfile": str(place.launch_parent / "hosts"),
        "ENVIRONMENT": "BATCH",
    }
    return environ | _allocation(job, place) | _options(job) | _array(job)


def _allocation(job: Job, place: Place) -> dict[str, str]:
    assert job.allocation is not None
    nodes, tasks, cpus = job.allocation.nodes, job.allocation.tasks, job.allocation.cpus
    names, number, user = compress(nodes), str(job.number), str(os.getuid())
    return {
        "SLURM_CLUSTER_NAME": place.cluster,
        "SLURM_CPUS_ON_NODE": str(cpus[0]),
        "SLURM_GTIDS": "0",
        "SLURM_JOBID": number,
        "SLURM_JOB_CPUS_PER_NODE": short_counts(cpus),
        "SLURM_JOB_GID": str(os.getgid()),
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NAME": job.request.name,
        "SLURM_JOB_NODELIST": names,
        "SLURM_JOB_NUM_NODES": str(len(nodes)),
        "SLURM_JOB_PARTITION": job.partition.name,
        "SLURM_JOB_UID": user,
        "SLURM_JOB_USER": job.letters()["u"],
        "SLURM_LOCALID": "0",
        "SLURM_NNODES": str(len(nodes)),
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": names,
        "SLURM_PROCID": "0",
        "SLURM_SUBMIT_DIR": job.request.submit_directory,
        "SLURM_SUBMIT_HOST": os.uname().nodename,
        "SLURM_TASKS_PER_NODE": short_counts(tasks),
        "SLURMD_NODENAME": nodes[0],
        "SLURM_PRIO_PROCESS": "0",
        "SLURM_TOPOLOGY_ADDR": nodes[0],
        "SLURM_TOPOLOGY_ADDR_PATTERN": "node",
        **_times(job, place),
        **({"SLURM_RESTART_COUNT": str(job.restarts)} if job.restarts else {}),
    }


def _times(job: Job, place: Place) -> dict[str, str]:
    """22.05 sets none of them."""
    if place.slurm == "22.05":
        return {}
    end = {} if job.end is None else {"SLURM_JOB_END_TIME": str(int(job.end))}
    return {"SLURM_JOB_START_TIME": str(int(job.start or 0)), **end}


def _options(job: Job) -> dict[str, str]:
    """Variables that are set only when their option was given."""
    request = job.request
    found: dict[str, str] = {}
    if request.ntasks is not None or request.ntasks_per_node is not None:
        found |= {"SLURM_NTASKS": str(job.ntasks), "SLURM_NPROCS": str(job.ntasks)}
    if request.ntasks_per_node is not None:
        found["SLURM_NTASKS_PER_NODE"] = str(request.ntasks_per_node)
    if request.cpus_per_task is not None:
        found["SLURM_CPUS_PER_TASK"] = str(request.cpus_per_task)
    memory = {"mem": "SLURM_MEM_PER_NODE", "mem-per-cpu": "SLURM_MEM_PER_CPU"}
    found |= {variable: _megabytes(request.shown[name]) for name, variable in memory.items() if name in request.shown}
    names = {"gpus": "SLURM_GPUS",
             "gpus-per-node": "SLURM_GPUS_PER_NODE", "gpus-per-task": "SLURM_GPUS_PER_TASK",
             "account": "SLURM_JOB_ACCOUNT", "qos": "SLURM_JOB_QOS", "comment": "SLURM_JOB_COMMENT"}  # fmt: skip
    return found | {variable: request.shown[name] for name, variable in names.items() if name in request.shown}


def _megabytes(text: str) -> str:
    """`4G` → 4096; without a unit it is megabytes already. Kilobytes are rounded up."""
    digits = text.rstrip("KMGTkmgtBb")
    shift = {"K": -10, "G": 10, "T": 20}.get(text[len(digits) :][:1].upper(), 0)
    return str(-(-int(digits) // 1024) if shift < 0 else int(digits) << shift)


def _array(job: Job) -> dict[str, str]:
    plan = job.request.array
    if plan is None or job.array is None:
        return {}
    tasks = plan.tasks
    step = tasks[1] - tasks[0] if len(tasks) > 1 else 1
    return {
        "SLURM_ARRAY_JOB_ID": str(job.array),
        "SLURM_ARRAY_TASK_ID": str(job.task),
        "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
        "SLURM_ARRAY_TASK_MAX": str(tasks[-1]),
        "SLURM_ARRAY_TASK_MIN": str(tasks[0]),
        "SLURM_ARRAY_TASK_STEP": str(step),
    }
