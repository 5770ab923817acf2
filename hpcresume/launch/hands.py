"""How the end of an attempt reaches the world: Slurm's commands, the clock, and waiting.

The one seam through which a simulation drives the real code, thousands of starts a minute, with a Slurm and a clock of
its own (`hpcresume.testing.fake_slurm`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpcresume.slurm.commands import Execute, Sleep, execute

__all__ = ["Hands"]


@dataclass(frozen=True)
class Hands:
    """Attributes:
    execute: runs Slurm's commands.
    clock: seconds since the epoch.
    sleep: waits.
    environ: the batch step's environment.
    """

    execute: Execute = execute
    clock: Callable[[], float] = time.time
    sleep: Sleep = time.sleep
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
