"""Ways to cut a global array into one block a rank: uneven, some of them empty."""

from __future__ import annotations

import random
from typing import Any

from hpcresume.model import GlobalSlice

__all__ = ["cuts", "my_slice"]


def cuts(length: int, parts: int, seed: int) -> list[int]:
    """`parts` + 1 ascending positions from 0 to `length`, drawn with `seed`; equal neighbours leave a rank nothing."""
    drawn = random.Random(f"{length}/{parts}/{seed}")
    return [0, *sorted(drawn.randint(0, length) for _ in range(parts - 1)), length]


def my_slice(whole: Any, axis: int, rank: int, size: int, seed: int = 0) -> GlobalSlice:
    """Rank `rank`'s block of `whole` (torch or numpy), cut along `axis` into `size` blocks; a copy."""
    shape = tuple(whole.shape)
    places = cuts(shape[axis], size, seed)
    low, high = places[rank], places[rank + 1]
    index = tuple(slice(low, high) if i == axis else slice(None) for i in range(len(shape)))
    block = whole[index]
    block = block.clone() if hasattr(block, "clone") else block.copy()
    return GlobalSlice(block, shape, tuple(low if i == axis else 0 for i in range(len(shape))))
