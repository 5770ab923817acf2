"""The order of samples, as a function of seed, epoch and position alone. Pure.

Sample k (k = 0, 1, 2 …) of the endless stream over n items belongs to epoch k // n and is item
`epoch_order(n, seed, k // n)[k % n]`. Global batch b is the next world_size × batch_size samples, of which
rank r takes the contiguous part r. Batches straddle epochs: nothing is dropped, padded or repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["SampleOrder", "epoch_order", "sample_seed"]

Order = npt.NDArray[np.int64]


def epoch_order(n: int, seed: int, epoch: int) -> Order:
    """The items of one epoch, shuffled.

    Exactly `np.argsort(np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n), kind="stable")`,
    so that a plain loop can reproduce it. Raw bit streams stay the same in every numpy version; the methods of
    `Generator` (permutation, shuffle) may change (NEP 19). Philox: J. K. Salmon et al., SC11. Ties: O(n² / 2^65).
    """
    keys = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n)
    order: Order = np.argsort(keys, kind="stable")
    return order


def sample_seed(seed: int, k: int) -> int:
    """64 bits that seed the generators while sample k of a stream is fetched.

    `int.from_bytes(hashlib.blake2b(f"{seed}:{k}".encode(), digest_size=8).digest(), "little")`.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{k}".encode(), digest_size=8).digest(), "little")


class SampleOrder:
    """The stream over `n` items; keeps the orders of the newest two epochs."""

    def __init__(self, n: int, seed: int, *, shuffle: bool) -> None:
        self.n = n
        self.seed = seed
        self.shuffle = shuffle
        self._kept: dict[int, Order] = {}

    def items(self, start: int, count: int) -> Iterator[tuple[int, int]]:
        """(k, item) for the samples k = start … start + count - 1."""
        for k in range(start, start + count):
            yield k, self.item(k)

    def item(self, k: int) -> int:
        """Index into the data set of sample k."""
        epoch, place = divmod(k, self.n)
        if not self.shuffle:
            return place
        if epoch not in self._kept:
            self._kept = {e: order for e, order in self._kept.items() if e == epoch - 1}
            self._kept[epoch] = epoch_order(self.n, self.seed, epoch)
        return int(self._kept[epoch][place])
