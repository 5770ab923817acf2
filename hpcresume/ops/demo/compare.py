"""Judges the interrupted training against the one left alone: bit for bit, or what differs by name.

Pure but for `compare_finals`, which reads the final states. Nothing is rounded, no tolerance exists.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcresume.observe.curve import Point
from hpcresume.ops.demo.traces import StepTrace, Trace, final_arrays

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Comparison", "Difference", "Samples", "compare_finals", "compare_logged", "compare_traces",
           "merge"]  # fmt: skip

_DAMAGED_ARCHIVE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,  # NotImplementedError too: a damaged flag asks for encryption or an unknown compression
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and numpy raise for a damaged archive, found by flipping every byte of one."""

Owner = Callable[[int], "int | None"]
"""From a step (from 0) to the restart whose work on it counts, None when nobody's does."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same: its kind, where, and what either side has."""

    kind: str
    where: str
    ours: str
    reference: str

    def __str__(self) -> str:
        return f"{self.kind} differs at {self.where}: {self.ours} instead of {self.reference}"


@dataclass(frozen=True)
class Samples:
    """Samples trained on in the steps that count: how many, how many too often, how many not at all."""

    seen: int = 0
    duplicated: int = 0
    missed: int = 0


@dataclass(frozen=True)
class Comparison:
    """What was compared and what differs. `losses`, `arrays` and `nbytes` count what was looked at."""

    differences: tuple[Difference, ...] = ()
    samples: Samples = field(default_factory=Samples)
    losses: int = 0
    arrays: int = 0
    nbytes: int = 0

    @property
    def identical(self) -> bool:
        """True only when something was compared, and nothing differs."""
        same = not self.differences and not self.samples.duplicated and not self.samples.missed
        return same and self.losses > 0 and self.arrays > 0


def merge(first: Comparison, second: Comparison) -> Comparison:
    """Both comparisons as one."""
    a, b = first.samples, second.samples
    return Comparison(
        first.differences + second.differences,
        Samples(a.seen + b.seen, a.duplicated + b.duplicated, a.missed + b.missed),
        first.losses + second.losses,
        first.arrays + second.arrays,
        first.nbytes + second.nbytes,
    )


def compare_traces(ours: Trace, reference: Trace, *, ranks: int, steps: int, owner: Owner) -> Comparison:
    """Compare every loss and every sample of every rank and step; steps are counted from 0.

    For each step the record of the start that owns it counts, and every record must be there.
    """
    differences = [Difference("trace", name, "damaged", "readable") for name in _unreadable(ours, reference)]
    repeats = [*ours.repeated, *(f"the reference, {where}" for where in reference.repeated)]
    differences += [Difference("trace", where, "recorded twice", "once") for where in repeats]
    got: Counter[int] = Counter()
    wanted: Counter[int] = Counter()
    for step, rank in ((step, rank) for step in range(steps) for rank in range(ranks)):
        restart = owner(step)
        mine = None if restart is None else ours.steps.get((restart, rank, step))
        theirs = reference.steps.get((0, rank, step))
        got.update(mine.samples if mine else ())
        wanted.update(theirs.samples if theirs else ())
        differences += _compare_step(f"step {step}, rank {rank}", mine, theirs)
    differences += [
        Difference("step", f"step {step}", "done", f"{steps} steps in all")
        for step in sorted({key[2] for key in (*ours.steps, *reference.steps)})
        if step >= steps
    ]
    samples = Samples(got.total(), (got - wanted).total(), (wanted - got).total())
    return Comparison(tuple(differences), samples, losses=2 * steps * ranks)


def compare_logged(kept: Sequence[Point], reference: Trace, *, steps: int) -> Comparison:
    """Compare what `s.log` kept of the loss, step by step, with the reference: the curve that a user looks at.

    `kept` counts steps from 1, as the ledger does.
    """
    differences = []
    logged = {point.step: point.value.hex() for point in kept}
    for step in range(steps):
        theirs = reference.steps.get((0, 0, step))
        mine = logged.get(step + 1, "missing")
        if theirs is not None and mine != theirs.loss:
            differences.append(Difference("logged loss", f"step {step}", mine, theirs.loss))
    return Comparison(tuple(differences), losses=steps)


def _unreadable(ours: Trace, reference: Trace) -> list[str]:
    return [*ours.unreadable, *(f"{name} of the reference" for name in reference.unreadable)]


def _compare_step(where: str, mine: StepTrace | None, theirs: StepTrace | None) -> Iterator[Difference]:
    if mine is None or theirs is None:
        yield Difference("step", where, "done" if mine else "missing", "done" if theirs else "missing")
        return
    for kind, left, right in (("loss", mine.loss, theirs.loss), ("rank's loss", mine.local, theirs.local)):
        if left != right:
            yield Difference(kind, where, left, right)
    if mine.samples != theirs.samples:
        yield Difference("samples", where, _short(mine.samples), _short(theirs.samples))


def _short(samples: Sequence[int]) -> str:
    return " ".join(map(str, samples[:6])) + (" …" if len(samples) > 6 else "")


def compare_finals(ours: Path, reference: Path, *, ranks: int) -> Comparison:
    """Compare the final state of every rank: each array's kind, shape and bytes."""
    total = Comparison()
    for rank in range(ranks):
        mine, theirs = _load(ours, rank), _load(reference, rank)
        if isinstance(mine, str) or isinstance(theirs, str):
            texts = [each if isinstance(each, str) else "readable" for each in (mine, theirs)]
            total = merge(total, Comparison((Difference("final state", f"rank {rank}", *texts),)))
            continue
        total = merge(total, _compare_arrays(rank, mine, theirs))
    return total


def _load(folder: Path, rank: int) -> dict[str, npt.NDArray[np.generic]] | str:
    try:
        return final_arrays(folder, rank)
    except _DAMAGED_ARCHIVE as error:
        return f"unreadable ({type(error).__name__}: {error})"


def _compare_arrays(
    rank: int, mine: dict[str, npt.NDArray[np.generic]], theirs: dict[str, npt.NDArray[np.generic]]
) -> Comparison:
    names = sorted({*mine, *theirs})
    differences = []
    for name in names:
        kind = "random state" if name.startswith("rng/") else "final state"
        texts = _compare_one(mine.get(name), theirs.get(name))
        if texts:
            differences.append(Difference(kind, f"{name}, rank {rank}", *texts))
    nbytes = sum(array.nbytes for array in mine.values())
    return Comparison(tuple(differences), arrays=len(names), nbytes=nbytes)


def _compare_one(
    mine: npt.NDArray[np.generic] | None, theirs: npt.NDArray[np.generic] | None
) -> tuple[str, str] | None:
    if mine is None or theirs is None:
        return ("missing" if mine is None else "there"), ("missing" if theirs is None else "there")
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        return f"{mine.dtype} {mine.shape}", f"{theirs.dtype} {theirs.shape}"
    left, right = mine.tobytes(), theirs.tobytes()
    if left == right:
        return None
    at = next(i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b)
    return f"byte {at} = {left[at]:#04x}", f"{right[at]:#04x}"
