"""Submits through submitit and prints the job's id: submit.py own|resumable MINUTES LEAD PARTITION."""

from __future__ import annotations

import sys
from pathlib import Path

import submitit

from benchmarks.peers import training


def main() -> None:
    """Submit."""
    what, minutes, lead, partition = sys.argv[1:]
    executor = make_executor(training.OUT, int(minutes), int(lead), partition)
    if what == "own":
        from benchmarks.peers.with_submitit import Trainer

        job = executor.submit(Trainer(), str(training.OUT / "checkpoint.pt"))
    else:
        import hpcresume as hr
        from benchmarks.peers.with_session import train

        job = executor.submit(hr.Resumable(train), str(training.OUT / "run"))
    print(job.job_id)


def make_executor(out: Path, minutes: int, lead: int, partition: str) -> submitit.AutoExecutor:
    """Two nodes with a task each, as the page on checkpointing has it; more timeouts than its default of 3."""
    executor = submitit.AutoExecutor(folder=out / "submitit", slurm_max_num_timeout=20)
    executor.update_parameters(
        nodes=2, tasks_per_node=1, timeout_min=minutes, slurm_partition=partition, slurm_signal_delay_s=lead
    )
    return executor


if __name__ == "__main__":
    main()
