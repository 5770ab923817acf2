"""Damages a generation on purpose: one bit of one tensor, as a failing disk might."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from hpcresume.checkpoint.generations import Generations
from hpcresume.errors import NoGenerationError
from hpcresume.model import Generation

__all__ = ["Damage", "damage_newest", "flip"]


@dataclass(frozen=True)
class Damage:
    """What was done: bit `bit` of the byte at `offset` of `file`, which belongs to `tensor`."""

    generation: str
    tensor: str
    file: str
    offset: int
    bit: int


def damage_newest(run: Path, seed: int) -> Damage:
    """Flip one bit in a weight of the newest generation; which one is chosen by `seed` from the manifest.

    Raises:
        NoGenerationError: there is no older generation to fall back to.
        OSError: the file cannot be changed.
    """
    chain = Generations(run).lineage()
    if len(chain) < 2:
        raise NoGenerationError("no older generation to fall back to", where=str(run), hint="more --steps")
    damage = _choose(chain[0], random.Random(seed))  # noqa: S311 (a place to damage is no secret)
    flip(chain[0].path / damage.file, damage.offset, damage.bit)
    return damage


def _choose(generation: Generation, chance: random.Random) -> Damage:
    tensors = [info for _, info in sorted(generation.tensors.items()) if info.nbytes]
    weights = [info for info in tensors if "model" in info.name.split("/")] or tensors
    info = chance.choice(weights)
    offset = info.offset + chance.randrange(info.nbytes)
    return Damage(generation.name, info.name, info.file, offset, chance.randrange(8))


def flip(path: Path, offset: int, bit: int) -> None:
    """Flip one bit on disk, past every promise that the file is immutable.

    Raises:
        OSError: it cannot be changed, or the byte does not come back changed.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        (before,) = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([before ^ 1 << bit]), offset)
        os.fsync(fd)
        if os.pread(fd, 1, offset) != bytes([before ^ 1 << bit]):
            raise OSError(5, "the flipped bit did not stay", str(path))
    finally:
        os.close(fd)
