"""What the environment says about how many of us there are. Pure: reads only the mapping it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Expected", "expected_world", "in_slurm_step", "started_by_mpi", "started_by_torch"]

_MPI_SIZES: Final = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE")
"""Set by the launchers of Open MPI, MVAPICH and MPICH (Intel MPI and srun --mpi=pmi2 use the last too)."""

_MAX_NORMAL_STEP: Final = 0xFFFFFFF0
"""Step ids from here on are no steps of srun (slurm.h: SLURM_MAX_NORMAL_STEP_ID; interactive, batch …)."""


@dataclass(frozen=True)
class Expected:
    """How many ranks were started (`size`), and the variable that says so (`source`)."""

    size: int
    source: str


def started_by_torch(env: Mapping[str, str]) -> bool:
    """Torchrun started us, or somebody set what `init_process_group("env://")` reads."""
    return "TORCHELASTIC_RUN_ID" in env or all(v in env for v in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))


def started_by_mpi(env: Mapping[str, str]) -> bool:
    """An MPI launcher started us (PMIX_RANK: mpiexec of Open MPI 5, srun --mpi=pmix)."""
    return any(v in env for v in (*_MPI_SIZES, "PMIX_RANK"))


def in_slurm_step(env: Mapping[str, str]) -> bool:
    """We are a task of an srun step, and not the batch script or an interactive shell.

    Those have SLURM_NTASKS too, and run one process whatever it says.
    """
    step = _count(env, "SLURM_STEP_ID")
    return "SLURM_PROCID" in env and step is not None and step < _MAX_NORMAL_STEP


def expected_world(env: Mapping[str, str]) -> Expected | None:
    """How many ranks the launcher says it started; None when nothing says so.

    The innermost launcher counts: under mpiexec or torchrun inside a Slurm job the SLURM_* variables are
    those of mpiexec's daemons or torchrun's agents, of which there is one a node.
    """
    if "TORCHELASTIC_RUN_ID" in env:
        return _first(env, ("WORLD_SIZE",))
    found = _first(env, _MPI_SIZES)
    if found is None and in_slurm_step(env):
        found = _first(env, ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"))
    return found


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> Expected | None:
    sizes = ((_count(env, name), name) for name in names)
    return next((Expected(size, name) for size, name in sizes if size is not None), None)


def _count(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
