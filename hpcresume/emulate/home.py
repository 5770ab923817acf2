"""The directory of one emulated cluster: socket, stand-ins, scripts, steps. Made private (0700), removed at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hpcresume.emulate import client_program, keeper_program
from hpcresume.emulate.census import MARK
from hpcresume.emulate.variables import Place
from hpcresume.io.mpiexec import find_mpiexec, open_mpi_variables

__all__ = ["PROGRAMS", "Home"]

PROGRAMS = ("sacct", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")

_STAND_IN = """\
#!/bin/sh
# Stands in for {name}, see {program}
exec {python} -S -I {program} {name} {socket} "$@"
"""
_QUICK_START = {} if "OMPI_MCA_btl" in os.environ else {"OMPI_MCA_btl": "^ofi"}
"""All ranks share this machine: looking for libfabric's networks only costs a second in every MPI_Init."""
_NOT_SLURM = {
    "PRTE_MCA_ras": "^slurm",
    "PRTE_MCA_plm": "^slurm",
    "OMPI_MCA_ras": "^slurm",
    "OMPI_MCA_plm": "^slurm",
    "HYDRA_BOOTSTRAP": "fork",
    "HYDRA_RMK": "user",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}
"""An mpiexec that the script calls starts all its ranks here instead of asking srun for daemons on the nodes."""


class Home:
    """Where a cluster lives, and the keeper that clears it away should we be killed."""

    def __init__(self, cluster: str) -> None:
        """Make everything.

        Raises:
            OSError: there is no place for it.
        """
        self.token = secrets.token_hex(8)
        self.directory = Path(tempfile.mkdtemp(prefix="hpcresume-emulate-"))
        self.shared_memory = _shared_memory_directory()
        self._mpiexec: tuple[list[str], dict[str, str]] | None = None
        self._cluster = cluster
        self._alive = -1
        self._keeper: subprocess.Popen[bytes] | None = None
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for name in ("bin", "spool", "steps", "launch", "tmp", "logs"):
            (self.directory / name).mkdir(mode=0o700)
        quoted = {
            "python": shlex.quote(sys.executable),
            "program": shlex.quote(str(client_program.__file__)),
            "socket": shlex.quote(str(self.socket)),
        }
        for name in PROGRAMS:
            path = self.directory / "bin" / name
            path.write_text(_STAND_IN.format(name=name, **quoted), encoding="utf-8")
            path.chmod(0o700)
        self._watch()

    def _watch(self) -> None:
        """Start the keeper; it sees our end by the pipe that closes."""
        read, self._alive = os.pipe2(os.O_CLOEXEC)
        directories = [str(self.directory), *([str(self.shared_memory)] if self.shared_memory else [])]
        words = [sys.executable, "-S", "-I", str(keeper_program.__file__), str(read), f"{MARK}={self.token}."]
        try:
            self._keeper = subprocess.Popen(
                [*words, *directories],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(read,),
                start_new_session=True,
            )
        finally:
            os.close(read)

    @property
    def socket(self) -> Path:
        """Where the controller listens."""
        return self.directory / "socket"

    @property
    def programs(self) -> Path:
        """The stand-ins, to be first on PATH."""
        return self.directory / "bin"

    def place(self) -> Place:
        """What jobs must know of it."""
        return Place(
            token=self.token,
            socket=self.socket,
            programs=self.programs,
            launch_parent=self.directory / "launch",
            cluster=self._cluster,
            mpi_environ={**_NOT_SLURM, **open_mpi_variables(), **self._mpi_places(), **_QUICK_START},
        )

    def _mpi_places(self) -> Mapping[str, str]:
        """Where MPI keeps its own files: what a kill -9 leaves of them then goes with this directory."""
        own = {
            "PRTE_MCA_prte_tmpdir_base": str(self.directory / "tmp"),
            "OMPI_MCA_orte_tmpdir_base": str(self.directory / "tmp"),
        }
        if self.shared_memory is None:
            return own
        memory = str(self.shared_memory)
        return own | {"OMPI_MCA_btl_sm_backing_directory": memory, "OMPI_MCA_btl_vader_backing_directory": memory}

    def mpiexec(self) -> tuple[list[str], dict[str, str]]:
        """The command that stands behind srun for MPI, and its variables.

        Raises:
            ConfigError: there is none.
        """
        if self._mpiexec is None:
            found = find_mpiexec()
            bind = ["--bind-to", "none"] if found.open_mpi else []
            environ = {**found.environ, "TMPDIR": str(self.directory / "tmp")}
            self._mpiexec = ([found.program, *found.options, *bind], environ)
        return self._mpiexec

    def close(self) -> None:
        """Remove everything."""
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1
        for directory in (self.directory, self.shared_memory):
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)


def _shared_memory_directory() -> Path | None:
    """A place of our own in /dev/shm for the ranks' shared segments, which outlive a kill -9."""
    parent = Path("/dev/shm")  # noqa: S108
    with contextlib.suppress(OSError):
        return Path(tempfile.mkdtemp(prefix="hpcresume-", dir=parent))
    return None
