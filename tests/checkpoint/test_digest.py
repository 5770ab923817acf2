"""A digest is of bytes at a place of a generation: the same bytes anywhere else do not match."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

import hpcresume as hr
from hpcresume.checkpoint.digest import DIGEST_BYTES, Binding, digest_bytes, digest_of_digests
from hpcresume.checkpoint.history import read_sealed

BINDING = Binding("ab" * 16, 120, 2, "state.h5")


def test_the_digest_is_what_the_format_page_says() -> None:
    seed = xxhash.xxh3_64_intdigest(b"abababababababababababababababab\x00120\x002\x00state.h5\x004096")
    assert BINDING.digest(b"hello", 4096) == xxhash.xxh3_128_digest(b"hello", seed=seed)
    assert len(BINDING.digest(b"", 0)) == DIGEST_BYTES


@pytest.mark.parametrize(
    "other",
    [{"run_id": "cd" * 16}, {"step": 121}, {"attempt": 1}, {"file": "state.000.h5"}],
    ids=lambda d: next(iter(d)),
)
def test_the_same_bytes_of_another_generation_or_file_have_another_digest(other: dict[str, object]) -> None:
    assert replace(BINDING, **other).digest(b"hello", 0) != BINDING.digest(b"hello", 0)  # type: ignore[arg-type]


def test_the_same_bytes_at_another_offset_have_another_digest() -> None:
    assert len({BINDING.digest(b"hello", offset) for offset in range(1000)}) == 1000


def test_neighbouring_numbers_do_not_run_together() -> None:
    assert replace(BINDING, step=12, attempt=3).digest(b"", 0) != replace(BINDING, step=1, attempt=23).digest(b"", 0)


def test_arrays_are_digested_as_their_bytes() -> None:
    array = np.arange(9, dtype=np.uint8)
    assert BINDING.digest(array, 3) == BINDING.digest(array.tobytes(), 3)
    assert digest_bytes(array) == xxhash.xxh3_128_digest(array.tobytes())
    assert digest_of_digests([b"ab", b"c"]) == digest_bytes(b"abc")


def test_equal_tensors_and_equal_generations_have_no_digest_in_common(tmp_path: Path) -> None:
    state = {"a": torch.zeros(3000), "b": torch.zeros(3000)}
    seen: list[str] = []
    for step in (1, 2):
        file = read_sealed(hr.save(tmp_path / "run", state, step=step).path).body.files[0]
        seen += [file.units[i : i + 32] for i in range(0, len(file.units), 32)]
    assert len(seen) >= 12
    assert len(set(seen)) == len(seen)
