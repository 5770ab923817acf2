"""Plays srun for an emulated job: `python -S -I srun_program.py LAYOUT [srun's options] COMMAND …`.

Becomes mpiexec with one application context a rank, so that every rank has the SLURM_* variables of a task of
step 0 on its emulated node. mpiexec passes USR1 and USR2 on as srun does, and ends all ranks when one fails, as
`srun --kill-on-bad-exit` does. Standard library only, run by path.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["main", "mpiexec_arguments", "task_environ"]

_TAKES_A_VALUE = frozenset({"-n", "-N", "-c", "-p", "-t", "-J", "-o", "-e", "-w"})


def main(words: Sequence[str]) -> None:
    """Become mpiexec. Does not return."""
    with open(words[0], encoding="utf-8") as file:
        layout = json.load(file)
    options, command = _split(words[1:])
    if "--mpi=list" in options:
        sys.stdout.write("MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\n")
        return
    if not command:
        sys.stderr.write("srun: fatal: No command given to execute.\n")
        raise SystemExit(1)
    arguments = mpiexec_arguments(layout, _ntasks(options, layout), command, os.environ)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    os.execve(arguments[0], arguments, {**environ, **layout["mpiexec_environ"]})  # noqa: S606


def mpiexec_arguments(
    layout: Mapping[str, Any], ntasks: int, command: Sequence[str], environ: Mapping[str, str]
) -> list[str]:
    """The arguments of mpiexec: one context a rank.

    mpiexec itself must see no SLURM variable, else it would ask Slurm to start daemons on the nodes.
    """
    kept = {key: value for key, value in environ.items() if key.startswith("SLURM")}
    temporary = ["-u", "TMPDIR"] if "TMPDIR" not in environ else []
    if "TMPDIR" in environ:
        kept["TMPDIR"] = environ["TMPDIR"]
    arguments: list[str] = list(layout["mpiexec"])
    for rank in range(ntasks):
        own = {**kept, **task_environ(layout, ntasks, rank)}
        pairs = [f"{key}={value}" for key, value in own.items()]
        arguments += [*([":"] if rank else []), "-n", "1", "env", *temporary, *pairs, *command]
    return arguments


def task_environ(layout: Mapping[str, Any], ntasks: int, rank: int) -> dict[str, str]:
    """The variables of one task (srun(1), OUTPUT ENVIRONMENT VARIABLES), ranks in blocks on the nodes."""
    per_node = layout["tasks_per_node"]
    node = min(rank // per_node, layout["nodes"] - 1)
    name = f"n{node}"
    return {
        "SLURM_STEP_ID": "0",
        "SLURM_STEPID": "0",
        "SLURM_NTASKS": str(ntasks),
        "SLURM_NPROCS": str(ntasks),
        "SLURM_STEP_NUM_TASKS": str(ntasks),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank - node * per_node),
        "SLURM_NODEID": str(node),
        "SLURMD_NODENAME": name,
        "HPCRESUME_NODE": name,
    }


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of srun itself, and the command."""
    i = 0
    while i < len(words) and words[i].startswith("-"):
        i += 2 if words[i] in _TAKES_A_VALUE else 1
    return list(words[:i]), list(words[i:])


def _ntasks(options: Sequence[str], layout: Mapping[str, Any]) -> int:
    count = int(layout["nodes"] * layout["tasks_per_node"])
    for i, option in enumerate(options):
        if option.startswith("--ntasks="):
            count = int(option.partition("=")[2])
        elif option == "-n":
            count = int(options[i + 1])
    return count


if __name__ == "__main__":
    main(sys.argv[1:])
