"""Whether the kernel killed for memory: on this node by the counters of the job's control groups, on the others by what
Slurm says of it, in the job's log and in its accounting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpcresume.slurm.accounting import memory_kills_of_steps
from hpcresume.slurm.commands import Execute, execute
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["memory_kills", "new_memory_kills", "told_of_memory"]

MOST_OF_A_LOG = 1 << 20
"""Bytes at the end of a log that are read: these words come when the ranks have ended."""

_OF_A_STEP = re.compile(
    rb"^slurmstepd(?:-\S{1,80})?: error: (?:\S{1,80}: )?Detected \d{1,9} oom[_-]kill event(?:s|\(s\))? in "
    rb"(?:StepId=|step )(?P<job>\d{1,10})\.\w{1,20}",
    re.MULTILINE,
)
"""slurmstepd's words at the end of a step's output: `oom-kill event(s) in StepId=12.0` on 22.05, `oom_kill event` on
24.11, `step 12.0` on older ones; behind its name stands its node where several run on one machine."""
_OF_A_TASK = re.compile(rb"^srun: error: [\w.,\[\]-]{1,200}: tasks? [\d,\[\]-]{1,80}: Out Of Memory\s*$", re.MULTILINE)

_CGROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def memory_kills(cgroups: Path = _CGROUPS, root: Path = _ROOT) -> dict[Path, int]:
    """The `oom_kill` counters of this process's control groups up to the job's (cgroups(7)), by file.

    Version 2 counts in memory.events, version 1 in memory.oom_control. Empty where there is none.
    """
    counts: dict[Path, int] = {}
    for file in _counter_files(cgroups, root):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, number = line.partition(" ")
            if key == "oom_kill" and number.strip().isdecimal():
                counts[file] = int(number)
    return counts


def new_memory_kills(before: dict[Path, int], after: dict[Path, int]) -> tuple[str, ...]:
    """One sentence for each counter that rose."""
    rose = {file: count - before.get(file, 0) for file, count in after.items() if count > before.get(file, 0)}
    return tuple(f"the kernel killed {count} process(es) for memory ({file})" for file, count in rose.items())


def told_of_memory(
    slurm: SlurmEnvironment, logs: Iterable[Mapping[str, Any]], *, execute: Execute = execute
) -> tuple[str, ...]:
    """What Slurm says of kills for memory in this start of the job, a sentence each.

    A rank that was killed on another node has left no word, and its node's counters cannot be read from here.

    Args:
        slurm: the job.
        logs: files to which Slurm writes for this job, as `hpcresume.io.outputs` tells them.
        execute: runs Slurm's commands.
    """
    if slurm.job_id is None:
        return ()
    for log in logs:
        words = _words_in(Path(str(log["path"])), int(log["offset"]))
        if words:
            return (f"Slurm, in the job's log: {words}",)
    return memory_kills_of_steps(slurm.job_id, execute=execute)


def _words_in(log: Path, since: int) -> str:
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since if since <= end else 0, end - MOST_OF_A_LOG))  # a log that was cut begins anew
            text = file.read(MOST_OF_A_LOG)
    except OSError:
        return ""
    # Tasks of an array have numbers of their own there; a log may be shared by them.
    own = os.environ.get("SLURM_JOB_ID", "").encode()
    found = next((each for each in _OF_A_STEP.finditer(text) if own in (b"", each["job"])), None)
    found = found or _OF_A_TASK.search(text)
    return found[0].decode(errors="replace").strip() if found else ""


def _counter_files(cgroups: Path, root: Path) -> list[Path]:
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            files += [root / each / "memory.events" for each in _job_levels(path)]
        elif "memory" in controllers.split(","):
            files += [root / "memory" / each / "memory.oom_control" for each in _job_levels(path)]
    return files


def _job_levels(path: str) -> list[str]:
    """The group and those above it that are Slurm's own: …/job_12/step_batch/task_0 counts for job_12 too."""
    parts = [part for part in path.split("/") if part and part != ".."]
    levels = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return [level for level in levels if "job_" in level] or levels[:1]
