"""Where a function that submitit runs finds itself: which executor, which task, where its result will lie.

Reads the environment that submitit sets (submitit/core/job_environment.py, 1.5.4).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """One task of a submitit job.

    Attributes:
        executor: "slurm", "local", "debug", or "" when submitit did not start this process.
        supervised: `hpcresume launch` started the ranks, and decides what becomes of the job.
        preempt_signal: the signal with which this executor warns.
    """

    executor: str
    supervised: bool = False
    preempt_signal: signal.Signals = signal.SIGUSR2

    @classmethod
    def here(cls, environ: Mapping[str, str]) -> Place:
        """Of this process."""
        executor = "debug" if "SUBMITIT_DEBUG_JOB_ID" in environ else environ.get("SUBMITIT_EXECUTOR", "")
        name = "SIG" + environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        known = signal.Signals.__members__
        return cls(
            executor if executor in ("slurm", "local", "debug") else "",
            environ.get("HPCRESUME_SUPERVISED") == "1",
            known.get(name, signal.SIGUSR2),
        )

    def result_file(self, task: int | None = None) -> Path | None:
        """Where the result of this task, or of another one, lies once there is one; None outside a job's folder."""
        if self.executor not in ("slurm", "local"):
            return None
        from submitit.core.job_environment import JobEnvironment
        from submitit.core.utils import JobPaths

        paths = JobEnvironment().paths
        found = paths if task is None else JobPaths(os.environ["SUBMITIT_FOLDER"], job_id=paths.job_id, task_id=task)
        return Path(found.result_pickle)

    def other_result_files(self) -> list[tuple[int, Path]]:
        """The other tasks of this job, by number, and where their results lie once there are any."""
        if self.executor not in ("slurm", "local"):
            return []
        from submitit.core.job_environment import JobEnvironment

        environment = JobEnvironment()
        others = [task for task in range(environment.num_tasks) if task != environment.global_rank]
        found = [(task, self.result_file(task)) for task in others]
        return [(task, file) for task, file in found if file is not None]
