"""Digests of units, bound to where their bytes belong, and digests of digests.

A unit's digest is xxh3-128 of its bytes, seeded with xxh3-64 of (run, step, attempt, file, offset): the same
bytes at another place, or of another generation, do not match. xxh3 guards against accidents, not attackers
(https://github.com/Cyan4973/xxHash: "non-cryptographic").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import xxhash

__all__ = ["ALGORITHM", "DIGEST_BYTES", "Binding", "digest_bytes", "digest_of_digests"]

ALGORITHM = "xxh3-128"
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Binding:
    """What a unit's digest is bound to, besides its offset."""

    run_id: str
    step: int
    attempt: int
    file: str

    def digest(self, data: Any, offset: int) -> bytes:
        """The digest (16 bytes) of one unit whose first byte lies at `offset` of the file."""
        text = f"{self.run_id}\0{self.step}\0{self.attempt}\0{self.file}\0{offset}"
        return xxhash.xxh3_128_digest(data, seed=xxhash.xxh3_64_intdigest(text.encode()))


def digest_bytes(data: Any) -> bytes:
    """The unbound digest (16 bytes) of `data`."""
    return xxhash.xxh3_128_digest(data)


def digest_of_digests(digests: Iterable[bytes]) -> bytes:
    """The digest of a sequence of digests."""
    return xxhash.xxh3_128_digest(b"".join(digests))
