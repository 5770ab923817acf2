"""Where a function that submitit runs finds itself: which executor, which task, and how it begins again there.

Reads the environment that submitit sets (submitit/core/job_environment.py and submitit/local/local.py, 1.5.4).
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Place", "begin_again_locally", "join_local_ranks", "local_time_is_up"]

STARTS = "HPCRESUME_SUBMITIT_STARTS"
"""How often this local task has begun again without its controller; all tasks of a job count alike."""
_FIRST_PORT, _PORTS = 15000, 16000


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


def local_time_is_up(environ: Mapping[str, str]) -> bool:
    """Has the local controller's own time limit come so near that it warns? Its clock began with this process."""
    try:
        limit = float(environ["SUBMITIT_LOCAL_TIMEOUT_S"]) - float(environ["SUBMITIT_LOCAL_SIGNAL_DELAY_S"])
    except (KeyError, ValueError):
        return False
    return _age() >= limit - 1


def _age() -> float:
    """Seconds since this process was started; exec does not change it (proc(5), starttime)."""
    stat = Path("/proc/self/stat").read_text()
    ticks = int(stat[stat.rindex(")") + 2 :].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def begin_again_locally(environ: MutableMapping[str, str]) -> None:
    """Become the same task anew, in this process: does not return.

    The controller of the local executor restarts a job five times at most, whatever ended it. So it is asked only
    when its own time limit is the reason; a preemption costs none of the five.
    """
    environ[STARTS] = str(int(environ.get(STARTS, "0")) + 1)
    command = shlex.split(environ["SUBMITIT_LOCAL_COMMAND"])
    os.execvp(command[0], command)  # noqa: S606


def join_local_ranks(environ: MutableMapping[str, str]) -> None:
    """Let the tasks of one local job find each other: torch's variables, unless the user has set them.

    The local executor starts its tasks side by side and tells none of an MPI; gloo needs no launcher.
    """
    tasks = environ.get("SUBMITIT_LOCAL_NTASKS", "1")
    if tasks in ("", "0", "1") or ("RANK" in environ and environ.get("HPCRESUME_LOCAL_RANKS") != "1"):
        return
    job, starts = int(environ.get("SUBMITIT_LOCAL_JOB_ID", "0")), int(environ.get(STARTS, "0"))
    rank = environ.get("SUBMITIT_LOCAL_GLOBALID", "0")
    environ.update(
        HPCRESUME_LOCAL_RANKS="1",
        RANK=rank,
        LOCAL_RANK=rank,
        WORLD_SIZE=tasks,
        LOCAL_WORLD_SIZE=tasks,
        MASTER_ADDR="127.0.0.1",
        # Another one each time: a peer must not meet the store of a process that is just leaving.
        MASTER_PORT=str(_FIRST_PORT + (job * 7 + starts * 131) % _PORTS),
    )
