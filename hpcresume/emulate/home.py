"""The directory of one emulated cluster: socket, stand-ins, scripts, steps. Made private (0700), removed at the end.

Should its owner be killed, the keeper clears it away; should the keeper be killed as well, the next cluster does.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hpcresume.emulate import client_program, keeper_program
from hpcresume.emulate.census import MARK
from hpcresume.emulate.variables import Place
from hpcresume.io.mpiexec import find_mpiexec, open_mpi_variables
from hpcresume.io.scratch import Scratch

__all__ = ["PROGRAMS", "Home"]

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_TOKEN = re.compile(rb"[0-9a-f]{16}")
_YOUNG = 10.0
"""Seconds after which the keeper of a killed cluster has surely cleared it away, if it lives."""
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
        self._scratches = [self._scratch(None)]
        self.directory = self._scratches[0].path
        self.shared_memory: Path | None = None
        self._mpiexec: tuple[list[str], dict[str, str]] | None = None
        self._cluster, self._slurm = cluster, slurm
        self._alive = -1
        self._keeper: subprocess.Popen[bytes] | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._build()
            undo.pop_all()

    def _scratch(self, parent: Path | None) -> Scratch:
        """A directory of our own; jobs of clusters that left one and are dead are ended."""
        note = self.token.encode("ascii")
        return Scratch("hpcresume-emulate-", parent=parent, note=note, settled=_YOUNG, last_rites=_end_jobs_of)

    def _build(self) -> None:
        with contextlib.suppress(OSError):  # for the ranks' shared segments, which outlive a kill -9
            self._scratches.append(self._scratch(_SHARED_MEMORY))
            self.shared_memory = self._scratches[1].path
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
        directories = [str(each.path) for each in self._scratches]
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
        while self._scratches:
            self._scratches.pop().remove()


def _end_jobs_of(token: bytes) -> None:
    """End what still runs of the jobs of a cluster whose owner and keeper are dead."""
    if _TOKEN.fullmatch(token):
        keeper_program.end_marked(MARK.encode("ascii") + b"=" + token + b".")
