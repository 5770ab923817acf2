"""Plays srun for tests of torchrun: one task a node on this machine, srun's rules for signals and failures.

USR1 and USR2 go to the tasks alone (SRUN_TRACKS=cgroup) or to every process below them (linuxproc). The first task
that fails ends the others, and its code (128 + n for a signal) is ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

words = sys.argv[1:]
if "--mpi=list" in words:
    sys.exit(0)
assert "--mpi=none" in words
assert "--kill-on-bad-exit=1" in words
assert "--ntasks-per-node=1" in words
count = int(next(word for word in words if word.startswith("--ntasks=")).partition("=")[2])
while words[0].startswith("--"):
    words.pop(0)
environ = {**os.environ, "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(count)}
tasks: list[subprocess.Popen[bytes]] = []


def forward(number: int, frame: object) -> None:
    """To the direct children of the step's daemon, or to all there is."""
    for task in tasks:
        if task.poll() is None:
            below = psutil.Process(task.pid).children(recursive=True) if os.environ["SRUN_TRACKS"] != "cgroup" else []
            for pid in (task.pid, *(process.pid for process in below)):
                os.kill(pid, number)


def end(number: int, frame: object) -> None:
    """srun answers a TERM of its own by KILL to its tasks."""
    for task in tasks:
        task.kill()


signal.signal(signal.SIGUSR1, forward)
signal.signal(signal.SIGUSR2, forward)
signal.signal(signal.SIGTERM, end)
for node in range(count):
    own = {"SLURM_PROCID": str(node), "SLURM_NODEID": str(node), "SLURM_LOCALID": "0", "HPCRESUME_NODE": f"n{node}"}
    tasks.append(subprocess.Popen(words, env=environ | own))
worst = 0
while any(task.poll() is None for task in tasks):
    codes = [task.poll() for task in tasks]
    bad = [code for code in codes if code]
    if bad and not worst:
        worst = bad[0] if bad[0] > 0 else 128 - bad[0]
        end(0, None)
    time.sleep(0.05)
sys.exit(worst or max(128 - code if code < 0 else code for code in (task.poll() or 0 for task in tasks)))
