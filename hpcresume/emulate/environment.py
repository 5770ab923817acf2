"""The environment of an emulated batch script: what sbatch and slurmd would set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hpcresume.config.timetable import EmulatedJob

__all__ = ["MARK", "batch_environ"]

MARK = "HPCRESUME_EMULATED_JOB"
"""Set for everything that the job starts: by it the emulator knows its own."""


def batch_environ(
    job: EmulatedJob,
    *,
    outer: Mapping[str, str],
    mark: str,
    programs: Path,
    launch_parent: Path,
    restarts: int,
    start: float,
) -> dict[str, str]:
    """The variables of the batch script (sbatch(1), OUTPUT ENVIRONMENT VARIABLES).

    Args:
        job: the job.
        outer: our own environment; an outer job's SLURM variables do not pass.
        mark: names this emulated job.
        programs: directory with the stand-ins, put first on PATH.
        launch_parent: where the supervisor makes its directory.
        restarts: how often the job was started before.
        start: when this attempt starts, unix seconds.
    """
    environ = {k: v for k, v in outer.items() if not k.startswith(("SLURM", "HPCRESUME_LAUNCH"))}
    environ |= {
        "PATH": f"{programs}{os.pathsep}{outer.get('PATH', os.defpath)}",
        MARK: mark,
        "HPCRESUME_LAUNCH_PARENT": str(launch_parent),
        "HPCRESUME_NODE": "n0",
        "SLURM_CLUSTER_NAME": "emulated",
        "SLURM_JOB_ID": str(job.job_id),
        "SLURM_JOBID": str(job.job_id),
        "SLURM_JOB_NAME": job.job_name,
        "SLURM_JOB_PARTITION": "emulated",
        "SLURM_JOB_NODELIST": job.node_list,
        "SLURM_NODELIST": job.node_list,
        "SLURM_JOB_NUM_NODES": str(job.nodes),
        "SLURM_NNODES": str(job.nodes),
        "SLURM_NTASKS": str(job.ntasks),
        "SLURM_NPROCS": str(job.ntasks),
        "SLURM_NTASKS_PER_NODE": str(job.tasks_per_node),
        "SLURM_TASKS_PER_NODE": _per_node(job),
        "SLURM_SUBMIT_DIR": os.getcwd(),
        "SLURM_SUBMIT_HOST": os.uname().nodename,
        "SLURM_JOB_START_TIME": str(int(start)),
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURMD_NODENAME": "n0",
    }
    if job.time_limit is not None:
        environ["SLURM_JOB_END_TIME"] = str(int(start + job.time_limit))
    if restarts:
        environ["SLURM_RESTART_COUNT"] = str(restarts)
    return environ


def _per_node(job: EmulatedJob) -> str:
    """Slurm's short form: `2(x3)` for three nodes of two tasks."""
    return str(job.tasks_per_node) + (f"(x{job.nodes})" if job.nodes > 1 else "")
