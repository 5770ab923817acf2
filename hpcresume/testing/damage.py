"""Damage to files on purpose, for tests of what notices it: yours and ours. Knows nothing of generations.

Every function changes the file in place and returns True when its content really became another one.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["copy_block", "flip_bit", "flip_byte", "swap_blocks", "truncate", "zero_block"]

SECTOR = 512
"""Bytes of the smallest block that a disk loses at once."""


def _replace(path: Path, offset: int, data: bytes) -> bool:
    """Overwrite in place (same inode, no truncation); the file may be read-only to its owner's eyes."""
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(len(data))
        if len(old) < len(data):
            raise ValueError(f"{path.name} has no {len(data)} bytes at {offset}")
        file.seek(offset)
        file.write(data)
    return old != data


def _read(path: Path, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def flip_bit(path: Path, offset: int, bit: int = 0) -> bool:
    """Flip bit 0 to 7 of the byte at `offset`.

    Raises:
        ValueError: the file has no such byte.
    """
    return flip_byte(path, offset, 1 << bit)


def flip_byte(path: Path, offset: int, mask: int = 0xFF) -> bool:
    """Flip the bits of `mask` in the byte at `offset`.

    Raises:
        ValueError: the file has no such byte.
    """
    old = _read(path, offset, 1)
    return _replace(path, offset, bytes([(old[0] if old else 0) ^ mask]))


def truncate(path: Path, size: int) -> bool:
    """Cut the file to `size` bytes (or extend it by zeros)."""
    before = path.stat().st_size
    os.truncate(path, size)
    return before != size


def zero_block(path: Path, offset: int, length: int = SECTOR) -> bool:
    """Zero `length` bytes from `offset`, fewer at the end of the file, as a lost sector reads."""
    return _replace(path, offset, bytes(len(_read(path, offset, length))))


def swap_blocks(path: Path, first: int, second: int, length: int = SECTOR) -> bool:
    """Exchange two blocks of `length` bytes that do not overlap, as a misdirected write does.

    Raises:
        ValueError: the blocks overlap or leave the file.
    """
    if abs(first - second) < length:
        raise ValueError(f"blocks of {length} bytes at {first} and {second} overlap")
    a, b = _read(path, first, length), _read(path, second, length)
    if len(a) < length or len(b) < length:
        raise ValueError(f"{path.name} has no two blocks of {length} bytes at {first} and {second}")
    _replace(path, first, b)
    return _replace(path, second, a)


def copy_block(source: Path, target: Path, offset: int, length: int = SECTOR) -> bool:
    """Put the block at `offset` of `source` at the same place of `target`, as a lost overwrite leaves it.

    Fewer bytes at the end of the shorter file.
    """
    room = max(0, target.stat().st_size - offset)
    return _replace(target, offset, _read(source, offset, min(length, room)))
