"""How long a run waits before it tries again what just failed. Pure: the same history gives the same pause.

A crash that comes from outside (a filesystem that is away, a licence server) needs time, and a hundred runs that
crashed together must not come back together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hpcresume.model import Cause

__all__ = ["Pauses", "pause_before_restart"]

FACTORS: Mapping[Cause, float] = MappingProxyType(
    {Cause.CRASH: 1.0, Cause.UNKNOWN: 1.0, Cause.OUT_OF_MEMORY: 1.0, Cause.STORAGE: 5.0}
)
"""The causes that wait, and how much longer than a crash: whoever mends a filesystem needs more than a minute.
Preemptions, time limits and lost nodes are no fault of the run, and the queue makes them wait already."""

SPREAD = 0.5
"""The pause lies between this share of the full one and all of it, as the run's name decides: full jitter would let
some runs come back at once ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015, compares them)."""


@dataclass(frozen=True)
class Pauses:
    """Seconds before the first restart after a crash without progress, doubled with each further one; and the most.

    `first` 0 switches pauses off.
    """

    first: float = 60.0
    most: float = 3600.0


def pause_before_restart(cause: Cause, barren: int, name: str, pauses: Pauses) -> float:
    """Seconds until the next attempt may begin, 0 for at once.

    Args:
        cause: why the attempt ended.
        barren: attempts in a row that ended so without progress, this one included; 0 after progress.
        name: the run's; decides where in its range the pause lies, so that runs come back one after the other.
        pauses: the user's choice.
    """
    factor = FACTORS.get(cause, 0.0)
    if factor == 0.0 or barren < 1 or pauses.first <= 0:
        return 0.0
    full = min(pauses.most, pauses.first * factor * 2.0 ** min(barren - 1, 30))
    digest = hashlib.blake2b(f"{name}:{barren}".encode(errors="surrogatepass"), digest_size=8).digest()
    share = int.from_bytes(digest, "little") / 2**64
    return full * (SPREAD + (1.0 - SPREAD) * share)
