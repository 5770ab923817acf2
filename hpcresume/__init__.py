"""Collective checkpoint and resume for torch and MPI jobs on Slurm.

Owns the public names and nothing else: each is imported when it is first used, so that `import hpcresume`
loads neither torch, h5py, mpi4py nor numpy.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hpcresume.version import __version__

if TYPE_CHECKING:
    from hpcresume import errors
    from hpcresume.checkpoint.api import load, read_tensor
    from hpcresume.checkpoint.generations import Generations
    from hpcresume.integrations.submitit import Resumable, submit
    from hpcresume.model import EveryRank, Generation, GlobalSlice, Loaded, RankLocal

    # From where they are defined: `hpcresume.session` would be the subpackage to a type checker.
    from hpcresume.session.lone_save import save
    from hpcresume.session.outcomes import RunFinished, RunHeld, Stopped
    from hpcresume.session.session import Session, session

__all__ = [
    "EveryRank",
    "Generation",
    "Generations",
    "GlobalSlice",
    "Loaded",
    "RankLocal",
    "Resumable",
    "RunFinished",
    "RunHeld",
    "Session",
    "Stopped",
    "__version__",
    "errors",
    "load",
    "read_tensor",
    "save",
    "session",
    "submit",
]

_HOMES = {
    "EveryRank": "hpcresume.model",
    "Generation": "hpcresume.model",
    "Generations": "hpcresume.checkpoint.generations",
    "GlobalSlice": "hpcresume.model",
    "Loaded": "hpcresume.model",
    "RankLocal": "hpcresume.model",
    "Resumable": "hpcresume.integrations.submitit",
    "RunFinished": "hpcresume.session.outcomes",
    "RunHeld": "hpcresume.session.outcomes",
    "Session": "hpcresume.session.session",
    "Stopped": "hpcresume.session.outcomes",
    "load": "hpcresume.checkpoint.api",
    "read_tensor": "hpcresume.checkpoint.api",
    "save": "hpcresume.session.lone_save",
    "session": "hpcresume.session.session",
    "submit": "hpcresume.integrations.submitit",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("hpcresume.errors")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `hpcresume.session` and `submit` the functions: importing the subpackages so named would rebind them."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("session", "submit") and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[object, ...]:
        """By name, as any module: cloudpickle, with which submitit sends functions, knows plain modules only."""
        return importlib.import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Package

if os.environ.get("HPCRESUME_SUPERVISED") == "1":
    # A rank that our own supervisor started: should the program fail before its session, its peers must not wait.
    importlib.import_module("hpcresume.comm.last_resort").end_peers_on_uncaught_errors()
