"""The tasks of one job of submitit's local executor: how they find each other, and how they begin again.

The executor starts its tasks side by side and tells none of an MPI; a controller, their common parent, waits for them
(submitit/local/local.py, 1.5.4).
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from hpcresume.errors import RanksMissingError
from hpcresume.io.durable import write_durably
from hpcresume.io.ports import free_port
from hpcresume.io.processes import is_running, start_time

__all__ = ["begin_again_locally", "join_local_ranks", "local_time_is_up"]

STARTS = "HPCRESUME_SUBMITIT_STARTS"
"""How often this local task has begun again without its controller; all tasks of a job count alike."""
PATIENCE = 300.0
"""Seconds until a task gives up on the first one, which has to say where to meet; torch waits as long for its store."""
LOOK_EVERY = 0.05


def local_time_is_up(environ: Mapping[str, str]) -> bool:
    """Has the local controller's own time limit come so near that it warns? Its clock began with this process."""
    try:
        limit = float(environ["SUBMITIT_LOCAL_TIMEOUT_S"]) - float(environ["SUBMITIT_LOCAL_SIGNAL_DELAY_S"])
    except (KeyError, ValueError):
        return False
    return _age() >= limit - 1


def _age() -> float:
    """Seconds since this process was started; exec does not change it (proc(5), starttime)."""
    ticks = int(start_time(os.getpid()) or 0)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def begin_again_locally(environ: MutableMapping[str, str]) -> None:
    """Become the same task anew, in this process: does not return.

    The controller of the local executor restarts a job five times at most, whatever ended it. So it is asked only
    when its own time limit is the reason; a preemption costs none of the five.
    """
    environ[STARTS] = str(int(environ.get(STARTS, "0")) + 1)
    command = shlex.split(environ["SUBMITIT_LOCAL_COMMAND"])
    os.execvp(command[0], command)  # noqa: S606


def join_local_ranks(environ: MutableMapping[str, str], folder: Path) -> None:
    """Let the tasks of one local job find each other: torch's variables, unless the user has set them.

    Gloo needs no launcher, but a port that all tasks know. The first task looks for a free one, another one at each
    start (a peer must not meet the store of a process that is just leaving), and leaves it in the job's folder.

    Raises:
        RanksMissingError: the first task has not said where to meet.
        ConfigError: no port is free.
    """
    tasks = environ.get("SUBMITIT_LOCAL_NTASKS", "1")
    if tasks in ("", "0", "1") or ("RANK" in environ and environ.get("HPCRESUME_LOCAL_RANKS") != "1"):
        return
    job, starts = environ.get("SUBMITIT_LOCAL_JOB_ID", "0"), int(environ.get(STARTS, "0"))
    rank, meeting = environ.get("SUBMITIT_LOCAL_GLOBALID", "0"), folder / f"{job}_meeting.json"
    if rank == "0":
        port = free_port(int(job) * 7 + starts * 131, where="submitit's local executor")
        _announce(meeting, port, starts)
    else:
        port = _told(meeting, starts)
    environ.update(
        HPCRESUME_LOCAL_RANKS="1",
        RANK=rank,
        LOCAL_RANK=rank,
        WORLD_SIZE=tasks,
        LOCAL_WORLD_SIZE=tasks,
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )


def _announce(meeting: Path, port: int, starts: int) -> None:
    pid = os.getpid()
    facts = {"port": port, "pid": pid, "started": start_time(pid), "starts": starts}
    write_durably(meeting, json.dumps(facts).encode() + b"\n")


def _told(meeting: Path, starts: int) -> int:
    """The port of this very start: an older first task, of a job with the same number even, is not running any more."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        port = _port(meeting, starts)
        if port:
            return port
        time.sleep(LOOK_EVERY)
    raise RanksMissingError(
        f"the first task of the job has not said within {PATIENCE:g} s where to meet",
        where=str(meeting),
        hint="see its log for why it did not start",
    )


def _port(meeting: Path, starts: int) -> int:
    try:
        facts = json.loads(meeting.read_bytes())
        if facts["starts"] == starts and is_running(facts["pid"], facts["started"]):
            return int(facts["port"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0
