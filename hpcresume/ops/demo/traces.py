"""Reads what the example programs record of the steps they really did (format: examples/gpt/README.md).

Independent of hpcresume's own files, so that it can bear witness against them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcresume.observe.lines import JsonObject, read_lines

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["StepTrace", "Trace", "final_arrays", "final_ranks", "read_trace"]


@dataclass(frozen=True)
class StepTrace:
    """One step of one rank: the loss over all ranks and over this one as hexadecimal floats, the samples.

    `t` is the unix time at which the step was finished.
    """

    loss: str
    local: str
    samples: tuple[int, ...]
    t: float

    @property
    def value(self) -> float:
        """The loss over all ranks."""
        return float.fromhex(self.loss)


@dataclass(frozen=True)
class Trace:
    """Everything a program did: by (restart, rank, step), steps from 0 as the loop counts them.

    `repeated` names what one start recorded more than once, `unreadable` the damaged lines.
    """

    steps: Mapping[tuple[int, int, int], StepTrace]
    repeated: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def read_trace(folder: Path) -> Trace:
    """Read all trace files in `folder`.

    Raises:
        OSError: a file cannot be read.
    """
    steps: dict[tuple[int, int, int], StepTrace] = {}
    repeated: list[str] = []
    unreadable: list[str] = []
    for path in sorted(folder.glob("trace-*.jsonl")):
        head, *lines = read_lines(path).objects or ({},)
        try:
            rank, restart = int(head["rank"]), int(head["restart"])
            parsed = [(int(line["step"]), _step(line)) for line in lines]
        except (KeyError, TypeError, ValueError):
            unreadable.append(path.name)
            continue
        for step, record in parsed:
            key = (restart, rank, step)
            if key in steps:
                repeated.append(f"start {restart + 1}, rank {rank}, step {step}")
            steps[key] = record
    return Trace(steps, tuple(repeated), tuple(unreadable))


def _step(line: JsonObject) -> StepTrace:
    samples: Iterable[Any] = line["samples"]
    for name in ("loss", "local"):
        float.fromhex(line[name])
    return StepTrace(line["loss"], line["local"], tuple(int(s) for s in samples), float(line["t"]))


def final_ranks(folder: Path) -> list[int]:
    """Ranks whose final state lies in `folder`, ascending."""
    return sorted(int(path.stem.partition("-")[2]) for path in folder.glob("final-*.npz"))


def final_arrays(folder: Path, rank: int) -> dict[str, npt.NDArray[np.generic]]:
    """The final state of a rank: weights, optimizer, schedule, generators, by name.

    Raises:
        OSError: the file is missing. Damage raises whatever zipfile and numpy do.
    """
    import numpy as np

    path = folder / f"final-{rank:04d}.npz"
    # Opened here: numpy leaves a path that it opened itself open when the archive turns out damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
