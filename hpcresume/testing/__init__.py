"""Shipped for users' own tests: a fault-injecting filesystem, contract suites, and a real Slurm on one machine.

Nothing below the command line may import it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcresume.testing.minislurm import MiniSlurm, Partition

__all__ = ["MiniSlurm", "Partition"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("hpcresume.testing.minislurm"), name)
