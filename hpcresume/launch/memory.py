"""Whether the kernel killed for memory in this job's control groups. Reads counters only."""

from __future__ import annotations

from pathlib import Path

__all__ = ["memory_kills", "new_memory_kills"]

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
