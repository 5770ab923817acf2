"""How torchrun's agents are started: one a node, by srun in a Slurm job of several nodes, else one right here.

Owns the argument lists, and where the agents find each other. Starts nothing; the agent itself is a program of
its own, since this side never imports torch.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcresume.errors import ConfigError
from hpcresume.io import ports
from hpcresume.slurm.commands import node_address
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["AGENT", "agent_command", "free_port", "meeting_address", "srun_words", "worker_command", "workers_per_node"]

AGENT = Path(__file__).resolve().parents[1] / "integrations" / "torchrun_agent.py"
"""The agent's program; its arguments are described there."""


def agent_command(
    shim: Sequence[str],
    command: Sequence[str],
    workers: int | None,
    slurm: SlurmEnvironment,
    environ: Mapping[str, str],
) -> tuple[str, ...]:
    """The command of one node's agent, the same on every node.

    Raises:
        ConfigError: no port is free, or the first node cannot be found by the others.
    """
    nodes = slurm.nnodes or 1
    address = "127.0.0.1" if nodes == 1 else meeting_address(slurm)
    name = f"{slurm.job_id or f'local-{os.getpid()}'}-{slurm.restart_count}"
    return (
        *shim,
        sys.executable,
        str(AGENT),
        f"--nodes={nodes}",
        f"--workers={workers or workers_per_node(environ)}",
        f"--address={address}",
        f"--port={free_port(slurm)}",
        f"--id={name}",
        "--",
        *worker_command(command),
    )


def srun_words(options: Sequence[str], slurm: SlurmEnvironment, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The part before the agent's command: srun with one task a node, nothing when there is one node outside Slurm.

    Raises:
        ConfigError: several nodes and no srun, or options for an srun that is not used.
    """
    if shutil.which("srun") is None or not slurm.in_job:
        if (slurm.nnodes or 1) > 1:
            raise ConfigError("several nodes need srun to start their agents", where="--mpi torchrun")
        if options:
            raise ConfigError("there is no srun here to take an option", where=f"--option={options[0]}")
        return ()
    nodes = str(slurm.nnodes or 1)
    # srun has not read sbatch's --cpus-per-task since 22.05; without it all workers of a node share one core.
    cores = environ.get("SLURM_CPUS_PER_TASK", "")
    cpus = (f"--cpus-per-task={cores}",) if cores.isdecimal() else ()
    return (
        "srun",
        "--kill-on-bad-exit=1",
        "--mpi=none",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        *cpus,
        *options,
    )


def worker_command(command: Sequence[str]) -> tuple[str, ...]:
    """What a worker runs: a Python file under this Python, as torchrun does it, or any program as it is."""
    if command and command[0].endswith(".py"):
        return (sys.executable, "-u", *command)
    return tuple(command)


def workers_per_node(environ: Mapping[str, str]) -> int:
    """One for each GPU that Slurm gave us on this node (sbatch(1), SLURM_GPUS_ON_NODE), else one."""
    text = environ.get("SLURM_GPUS_ON_NODE", "")
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 6 else 1


def meeting_address(slurm: SlurmEnvironment) -> str:
    """What the other nodes call this one, the first of the job: a name of its own, else the address Slurm uses.

    A name that does not lead back to this machine (nodes that are only emulated have such) is of no use, nor is one
    that every machine has for itself.

    Raises:
        ConfigError: there is none, and 127.0.0.1 would send every node to itself.
    """
    for name in (slurm.node_name, socket.gethostname(), socket.getfqdn()):
        if name and name.partition(".")[0] != "localhost" and _is_ours(name):
            return name
    address = node_address(slurm.node_name) if slurm.node_name else None
    if address and _is_ours(address):
        return address
    tried = ", ".join(dict.fromkeys(filter(None, (slurm.node_name, socket.gethostname(), address))))
    raise ConfigError(
        f"the other nodes cannot be told where this one is: none of {tried} leads back to it",
        where="--mpi torchrun",
        hint="give this node a name in DNS or /etc/hosts that all nodes of the job know",
    )


def _is_ours(name: str) -> bool:
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_can_bind(family, address) for family, _, _, _, address in found)


def _can_bind(family: int, address: object) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(address)  # type: ignore[arg-type]
    except OSError:
        return False
    return True


def free_port(slurm: SlurmEnvironment) -> int:
    """A port that nobody listens on, another one for each job and restart so that two starts never meet.

    Raises:
        ConfigError: none of those tried is free.
    """
    digits = (slurm.job_id or str(os.getpid())).replace("_", "")
    return ports.free_port(int(digits) * 7 + slurm.restart_count * 131, where="--mpi torchrun")
