"""What Slurm tells a process through its environment. Owns the SLURM_* names; runs no command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SlurmEnvironment"]


@dataclass(frozen=True)
class SlurmEnvironment:
    """The SLURM_* variables, typed. Every field is None when its variable is absent or no number.

    Names: sbatch(1) and srun(1), "OUTPUT ENVIRONMENT VARIABLES".

    Attributes:
        job_id: what scontrol and squeue take for this very job: `123`, for one task of an array `120_3`
            (the bare id would hit every task), for a heterogeneous job the leader's id; None outside Slurm.
        job_name: the user's name for it, any text.
        restart_count: how often Slurm started this job before, whatever the reason. Unset on the first start: 0.
        ntasks: tasks of the job, or of the step when inside one.
        procid: this task's rank. Slurm also sets it (to 0) in the batch script.
        localid: this task among those of its node.
        nodeid: this node among those of the job.
        nnodes: nodes of the job.
        node_name: this node, as Slurm names it.
        node_list: the job's nodes in Slurm's compressed form, `n[0-3]`.
        step_id: the step's id, None in the batch script.
        submit_dir: where sbatch was called.
        cluster: the cluster's name; two of them give the same job numbers.
        start_time: start of this attempt, seconds since the epoch.
        end_time: when the time limit falls, seconds since the epoch, as known at the start.
    """

    job_id: str | None = None
    job_name: str | None = None
    restart_count: int = 0
    ntasks: int | None = None
    procid: int | None = None
    localid: int | None = None
    nodeid: int | None = None
    nnodes: int | None = None
    node_name: str | None = None
    node_list: str | None = None
    step_id: str | None = None
    submit_dir: Path | None = None
    cluster: str | None = None
    start_time: float | None = None
    end_time: float | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> SlurmEnvironment:
        """Read the variables. Never raises: what is not understood counts as absent."""
        submit_dir = environ.get("SLURM_SUBMIT_DIR")
        return cls(
            job_id=_job_id(environ),
            job_name=environ.get("SLURM_JOB_NAME"),
            restart_count=_number(environ, "SLURM_RESTART_COUNT") or 0,
            ntasks=_number(environ, "SLURM_NTASKS", "SLURM_NPROCS"),
            procid=_number(environ, "SLURM_PROCID"),
            localid=_number(environ, "SLURM_LOCALID"),
            nodeid=_number(environ, "SLURM_NODEID"),
            nnodes=_number(environ, "SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
            node_name=environ.get("SLURMD_NODENAME"),
            node_list=environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST"),
            step_id=environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID"),
            submit_dir=Path(submit_dir) if submit_dir else None,
            cluster=environ.get("SLURM_CLUSTER_NAME"),
            start_time=_number(environ, "SLURM_JOB_START_TIME"),
            end_time=_number(environ, "SLURM_JOB_END_TIME"),
        )

    @property
    def in_job(self) -> bool:
        """True inside an allocation."""
        return self.job_id is not None

    @property
    def in_step(self) -> bool:
        """True in a task that srun started (the batch script is none)."""
        return self.in_job and self.procid is not None and (self.step_id or "").isdecimal()


def _job_id(environ: Mapping[str, str]) -> str | None:
    array, task = _number(environ, "SLURM_ARRAY_JOB_ID"), _number(environ, "SLURM_ARRAY_TASK_ID")
    if array is not None and task is not None:
        return f"{array}_{task}"
    number = _number(environ, "SLURM_HET_JOB_ID", "SLURM_JOB_ID", "SLURM_JOBID")
    return None if number is None else str(number)


def _number(environ: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        text = environ.get(name, "")
        # str.isdecimal alone takes digits of every script, and int() has a length limit that raises.
        if text.isascii() and text.isdecimal() and len(text) <= 18:
            return int(text)
    return None
