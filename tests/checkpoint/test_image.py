"""The file in memory behaves as a file does."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcresume.checkpoint.image import SparseImage

operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 20_000), st.integers(0, 9000)),
        st.tuples(st.just("read"), st.integers(0, 30_000), st.integers(0, 9000)),
    ),
    max_size=12,
)


@given(operations, st.integers(0, 9000))
@settings(max_examples=200, deadline=None)
def test_it_reads_back_what_a_real_file_would(steps: list[tuple[str, int, int]], more: int) -> None:
    real, image = io.BytesIO(), SparseImage()
    for kind, offset, length in steps:
        real.seek(offset)
        assert image.seek(offset) == offset
        if kind == "write":
            data = bytes((offset + i) % 251 for i in range(length))
            assert image.write(memoryview(data)) == length
            if length:
                real.write(data)
        else:
            found = bytearray(length)
            count = image.readinto(memoryview(found))
            assert bytes(found[:count]) == real.read(length)
            assert image.tell() == real.tell() or not count
    size = max(len(real.getvalue()), image.size) + more
    image.truncate(size)
    whole = real.getvalue() + bytes(size - len(real.getvalue()))
    assert image.seek(0, io.SEEK_END) == size
    assert image.read_at(0, size + 5) == whole
    rebuilt = bytearray(size)
    last = -1
    for offset, piece in image.pieces():
        assert offset > last
        assert 0 < len(piece) <= 1 << 20
        rebuilt[offset : offset + len(piece)] = piece
        last = offset + len(piece) - 1
    assert rebuilt == whole


def test_a_huge_file_with_little_in_it_costs_little() -> None:
    image = SparseImage()
    for offset in (0, 10**12):
        image.seek(offset)
        image.write(memoryview(b"x" * 10))
    assert image.size == 10**12 + 10
    assert [(offset, len(data)) for offset, data in image.pieces()] == [
        (0, 4096),
        (10**12 - 10**12 % 4096, 10 + 10**12 % 4096),
    ]


def test_neighbouring_pages_come_in_pieces_of_a_mebibyte() -> None:
    image = SparseImage()
    image.write(memoryview(bytes(3 << 20) + b"x"))
    assert [len(data) for _, data in image.pieces()] == [1 << 20, 1 << 20, 1 << 20, 1]
