"""A training command as one emulated job: the batch script that it needs, then `play`."""

from __future__ import annotations

import os
import shlex
import sys
from typing import BinaryIO

from hpcresume.config.timetable import EmulatedJob
from hpcresume.emulate.play import Between, Play, play
from hpcresume.emulate.request import JobRequest
from hpcresume.emulate.result import AttemptEnd, EmulationResult
from hpcresume.emulate.settings import ClusterSettings, default_partitions
from hpcresume.io.mpiexec import find_mpiexec
from hpcresume.io.processes import SHIM
from hpcresume.model import Emit, ignore_events

__all__ = ["AttemptEnd", "EmulatedJob", "EmulationResult", "batch_script", "emulate"]


def emulate(
    job: EmulatedJob,
    *,
    emit: Emit = ignore_events,
    between_attempts: Between | None = None,
    output: BinaryIO | None = None,
) -> EmulationResult:
    """Play Slurm for one job on this machine, to its end.

    Every attempt runs `hpcresume launch -- COMMAND` as its batch script; the stand-ins for Slurm's commands are first
    on its PATH, srun starting the ranks under this machine's mpiexec. Whatever happens, KeyboardInterrupt included, no
    process of the job outlives this call.

    Args:
        job: the command and its timetable.
        emit: told what happens, as it happens; `hpcresume.emulate.lines.line` makes a line of an event.
        between_attempts: called after an attempt that is requeued, while nothing of the job runs.
        output: gets what the job prints, all attempts one after the other.

    Raises:
        ConfigError: there is no mpiexec, or we are inside an emulated cluster already.
    """
    find_mpiexec()
    request = JobRequest(
        name=job.job_name,
        script=batch_script(job),
        command=job.command[0],
        directory=os.getcwd(),
        submit_directory=os.getcwd(),
        environ=dict(os.environ),
        nodes=job.nodes,
        ntasks_per_node=job.tasks_per_node,
        signal=job.signal,
        time_limit=job.time_limit,
        append=True,
        requeue=job.requeue,
    )
    settings = ClusterSettings(
        nodes=job.nodes,
        cpus=job.tasks_per_node,
        partitions=default_partitions(job.grace),
        kill_wait=job.kill_wait,
        requeue_delay=job.requeue_delay,
        node_down=job.requeue_delay,
        user_signal=job.user_signal,
        slurm=job.slurm,
    )
    what = Play(request, job.timetable, job.max_attempts, job.keep_logs, job.job_id, own_log=True)
    return play(what, settings, emit=emit, between_attempts=between_attempts, output=output)


def batch_script(job: EmulatedJob) -> str:
    """What a good batch script does: `exec env --block-signal=USR1 … hpcresume launch -- COMMAND`."""
    shim = [sys.executable, "-S", "-I", str(SHIM), "--only-blocked", "--block", "USR1", "--block", "USR2", "--"]
    # Nobody is there to release a held job, and nothing to wait for after a crash.
    here = ["--when-held", "end", "--pause", "off"]
    supervisor = [sys.executable, "-m", "hpcresume", "launch", *here, *job.launch_options, "--"]
    return f"#!/bin/sh\nexec {shlex.join([*shim, *supervisor, *job.command])}\n"
