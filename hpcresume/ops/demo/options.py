"""What the demo is asked to do, checked before anything starts: a demo that cannot work must say so at once."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from hpcresume.errors import ConfigError
from hpcresume.io.mpiexec import find_mpiexec
from hpcresume.ops.resources import example_path

__all__ = ["FEWEST_STEPS", "DemoOptions", "Timetable", "check", "timetable"]

FEWEST_STEPS = 40
"""With fewer, a save, a kill and a fallback no longer fit between two saves."""
MOST_RANKS = 64
_NEEDED = ("torch", "numpy", "h5py", "mpi4py", "matplotlib")


@dataclass(frozen=True)
class DemoOptions:
    """The options of `hpcresume demo`; see its help. `plot` is None for the default place."""

    ranks: int = 4
    nodes: int = 2
    steps: int = 80
    seed: int = 0
    keep: Path | None = None
    plot: Path | None = None

    @property
    def plot_path(self) -> Path:
        """Where the plot goes: as asked, else into the kept folder, else into the current one."""
        if self.plot is not None:
            return self.plot.absolute()
        folder = self.keep if self.keep is not None else Path()
        return (folder / "hpcresume-demo.png").absolute()


@dataclass(frozen=True)
class Timetable:
    """What happens after which finished step. Saves come every `every` steps.

    `killed` lies far enough behind a save that steps are lost, and two saves behind the warning, so that
    there is an older generation of the same attempt to fall back to.
    """

    every: int
    warned: int
    killed: int
    victim: int


def timetable(options: DemoOptions) -> Timetable:
    """The interruptions of a demo of `options.steps` steps."""
    every = options.steps // 8
    return Timetable(
        every=every,
        warned=options.steps * 3 // 10,
        killed=5 * every + every // 3,
        victim=options.ranks - 1,
    )


def check(options: DemoOptions) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: a program, package or example is missing, or an option makes no sense.
    """
    _check_numbers(options)
    _check_packages()
    find_mpiexec()
    for name in ("gpt/train.py", "gpt/plain.py"):
        example_path(name)
    if options.keep is not None:
        _check_folder(options.keep)
    if options.plot is not None or options.keep is None:
        _check_writable(options.plot_path.parent)


def _check_numbers(options: DemoOptions) -> None:
    if not 2 <= options.ranks <= MOST_RANKS:
        what = f"the demo takes 2 to {MOST_RANKS} ranks, not {options.ranks}"
        raise ConfigError(what, where="--ranks", hint="--ranks 4")
    if options.nodes < 1 or options.ranks % options.nodes:
        raise ConfigError(
            f"{options.ranks} ranks cannot be shared out evenly over {options.nodes} nodes",
            where="--nodes",
            hint="a number of nodes that divides the number of ranks",
        )
    if options.steps < FEWEST_STEPS:
        what = f"the demo takes at least {FEWEST_STEPS} steps, not {options.steps}"
        raise ConfigError(what, where="--steps", hint=f"--steps {FEWEST_STEPS}")
    if not 0 <= options.seed < 2**31:
        what = f"a seed is a number from 0 to {2**31 - 1}, not {options.seed}"
        raise ConfigError(what, where="--seed", hint="--seed 0")


def _check_packages() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the demo needs {', '.join(missing)}, which this Python does not have",
            where=sys.executable,
            hint="pip install 'hpcresume[demo]'",
        )


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "the folder to keep the demo in exists and is not empty", where=str(folder), hint="another --keep"
        )
    parent = folder if folder.exists() else next(p for p in folder.absolute().parents if p.exists())
    _check_writable(parent)


def _check_writable(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("this folder does not exist or cannot be written", where=str(folder), hint="--plot PATH")
