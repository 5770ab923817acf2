"""The two ends of a long file: whole lines, none twice, nothing of what lies between."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcresume.io.ends import read_ends

LINES = [f"line {number:04d}\n".encode() for number in range(1000)]


def test_the_ends_of_a_long_file_are_whole_lines(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"".join(LINES) + b"torn")
    first, last = read_ends(path, 25, 25)
    assert (first, last) == (b"".join(LINES[:2]), LINES[-2] + LINES[-1] + b"torn"[:4])


def test_all_of_a_short_file_is_its_end(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"a\nb\n")
    assert read_ends(path, 2, 2) == (b"", b"a\nb\n")
    with pytest.raises(FileNotFoundError):
        read_ends(tmp_path / "none", 2, 2)
