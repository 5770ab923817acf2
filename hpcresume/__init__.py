"""Collective checkpoint and resume for torch and MPI jobs on Slurm.

Owns the public names and nothing else: each is imported when it is first used, so that `import hpcresume`
loads neither torch, h5py, mpi4py nor numpy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hpcresume.version import __version__

if TYPE_CHECKING:
    from hpcresume import errors
    from hpcresume.checkpoint.api import load, read_tensor, save
    from hpcresume.checkpoint.generations import Generations
    from hpcresume.model import EveryRank, Generation, GlobalSlice, Loaded, RankLocal

    # From where they are defined: `hpcresume.session` would be the subpackage to a type checker.
    from hpcresume.session.outcomes import RunFinished, Stopped
    from hpcresume.session.session import Session, session

__all__ = [
    "EveryRank",
    "Generation",
    "Generations",
    "GlobalSlice",
    "Loaded",
    "RankLocal",
    "RunFinished",
    "Session",
    "Stopped",
    "__version__",
    "errors",
    "load",
    "read_tensor",
    "save",
    "session",
]

_HOMES = {
    "EveryRank": "hpcresume.model",
    "Generation": "hpcresume.model",
    "Generations": "hpcresume.checkpoint.generations",
    "GlobalSlice": "hpcresume.model",
    "Loaded": "hpcresume.model",
    "RankLocal": "hpcresume.model",
    "RunFinished": "hpcresume.session.outcomes",
    "Session": "hpcresume.session.session",
    "Stopped": "hpcresume.session.outcomes",
    "load": "hpcresume.checkpoint.api",
    "read_tensor": "hpcresume.checkpoint.api",
    "save": "hpcresume.checkpoint.api",
    "session": "hpcresume.session.session",
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
    """Keeps `hpcresume.session` the function: importing the subpackage of that name would rebind it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "session" and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
