"""What may travel between ranks in one call, the same for every backend. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hpcresume.errors import RanksError

__all__ = ["MAX_BYTES", "check_root", "check_total", "split"]

MAX_BYTES: Final = 2**31 - 1
"""Bytes that all ranks together may bring to one call: MPI counts and displacements are C ints."""


def check_total(call: str, total: int) -> None:
    """Refuse a call that is too large. `total` is known to every rank, so that all of them refuse it.

    Raises:
        RanksError: `total` is more than `MAX_BYTES`.
    """
    if total > MAX_BYTES:
        raise RanksError(
            f"{call} of {total} bytes is more than one call can carry ({MAX_BYTES})",
            hint="bulk data goes through files; messages between ranks are for what describes it",
        )


def check_root(root: int, size: int) -> None:
    """Refuse a root that does not exist.

    Raises:
        RanksError: `root` is not in 0 … size-1.
    """
    if not 0 <= root < size:
        raise RanksError(f"there is no rank {root} to broadcast from", where=f"{size} ranks")


def split(joined: npt.NDArray[np.uint8], lengths: Sequence[int]) -> list[bytes]:
    """Cut a flat byte array into pieces of the given lengths."""
    ends = np.cumsum(lengths)
    return [joined[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)]
