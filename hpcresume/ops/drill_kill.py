"""Kills every rank of a job on this node, at once and without a warning: for `hpcresume drill --node`.

`srun --jobid=JOB --overlap … python -m hpcresume.ops.drill_kill JOB`. Only processes of this user that Slurm or the
supervisor started in this very job are touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from hpcresume.comm.nodes import node_name
from hpcresume.comm.world import in_slurm_step

__all__ = ["is_rank", "main"]


def is_rank(environ: Mapping[str, str], job_id: str, ours: Mapping[str, str]) -> bool:
    """Is a process with this environment a rank of the job here, or its launcher, and not part of our own step?"""
    number, _, task = job_id.partition("_")
    if task and (environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")) != (number, task):
        return False
    if not task and environ.get("SLURM_JOB_ID") != number:
        return False
    step = environ.get("SLURM_STEP_ID", "")
    if step and step == ours.get("SLURM_STEP_ID"):
        return False
    if node_name(environ) != node_name(ours):
        return False
    # Some versions number the batch step too, by a number that no step of srun can have.
    return in_slurm_step(environ) or "HPCRESUME_SUPERVISED" in environ


def main(job_id: str) -> int:
    """Kill them. Exit code 1 when there was none."""
    killed = 0
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal() or int(path.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            environ = dict(word.partition("=")[::2] for word in words if "=" in word)
            if path.stat().st_uid == os.getuid() and is_rank(environ, job_id, os.environ):
                os.kill(int(path.name), signal.SIGKILL)
                killed += 1
    sys.stdout.write(f"{killed} processes killed\n")
    return 0 if killed else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
