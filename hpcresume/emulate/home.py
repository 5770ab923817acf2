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
from hpcresume.emulate.leftovers import PREFIX, lock, sweep
from hpcresume.emulate.variables import Place
from hpcresume.io.mpiexec import find_mpiexec, open_mpi_variables

__all__ = ["PROGRAMS", "Home"]

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
PROGRAMS = ("sacct", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")

_STAND_IN = """\
#!/bin/sh
# Stands in for {name}, see {program}
exec {python} -S -I {program} {name} {socket} "$@"
"""
_CONFIGURATION = """\
# SLURM_CONF of an emulated cluster: real Slurm commands that find their way here stop at the next line.
ThisIsAnEmulatedCluster=hpcresume
"""
_BASH_ENV = """\
# Read by the bash of a batch script before its first line, after /etc/profile where it is a login shell.
# The stand-ins stay on PATH whatever the script reads; programs that it starts see nothing of this file.
{{
  unset BASH_ENV
  PATH={programs}:$PATH
  trap {repair} DEBUG
}} 2>/dev/null
if [ "${{HPCRESUME_BASH_ENV+set}}" ]; then
  export BASH_ENV="$HPCRESUME_BASH_ENV"
  unset HPCRESUME_BASH_ENV
  . "$BASH_ENV"
fi
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

    def __init__(self, cluster: str, slurm: str) -> None:
        """Make everything for a cluster of this name and version.

        Raises:
            OSError: there is no place for it.
        """
        self.token = secrets.token_hex(8)
        sweep(Path(tempfile.gettempdir()))
        sweep(_SHARED_MEMORY)
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.shared_memory = _shared_memory_directory()
        self._locks: list[int] = []
        self._mpiexec: tuple[list[str], dict[str, str]] | None = None
        self._cluster, self._slurm = cluster, slurm
        self._alive = -1
        self._keeper: subprocess.Popen[bytes] | None = None
        try:
            for directory in self._directories():
                self._locks.append(lock(directory, self.token))
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
        self.configuration.write_text(_CONFIGURATION, encoding="ascii")
        programs = shlex.quote(str(self.programs))
        # The redirection keeps it out of what `set -x` shows.
        repair = f'{{ case ":$PATH:" in *:{programs}:*) ;; *) PATH={programs}:$PATH ;; esac; }} 2>/dev/null'
        text = _BASH_ENV.format(programs=programs, repair=shlex.quote(repair))
        self.configuration.with_name("bash_env").write_bytes(os.fsencode(text))
        self._watch()

    def _watch(self) -> None:
        """Start the keeper; it sees our end by the pipe that closes."""
        read, self._alive = os.pipe2(os.O_CLOEXEC)
        directories = [str(directory) for directory in self._directories()]
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

    def _directories(self) -> list[Path]:
        return [self.directory] if self.shared_memory is None else [self.directory, self.shared_memory]

    @property
    def socket(self) -> Path:
        """Where the controller listens."""
        return self.directory / "socket"

    @property
    def configuration(self) -> Path:
        """A slurm.conf that is none; `bash_env` lies beside it."""
        return self.directory / "slurm.conf"

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
            slurm=self._slurm,
            configuration=self.configuration,
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
        for directory in self._directories():
            shutil.rmtree(directory, ignore_errors=True)
        while self._locks:
            os.close(self._locks.pop())


def _shared_memory_directory() -> Path | None:
    """A place of our own in /dev/shm for the ranks' shared segments, which outlive a kill -9."""
    with contextlib.suppress(OSError):
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=_SHARED_MEMORY))
    return None
