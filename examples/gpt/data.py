"""Real text that every machine has: the source of Python's own standard library, as windows of bytes."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ByteWindows", "standard_library_text"]

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


def standard_library_text(limit: int) -> bytes:
    """The first `limit` bytes of the standard library's .py files, joined in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path for path in root.rglob("*.py") if SKIPPED.isdisjoint(path.relative_to(root).parts))
    text = bytearray()
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        text += path.read_bytes()
        if len(text) >= limit:
            break
    return bytes(text[:limit])


class ByteWindows(Dataset[tuple[Tensor, Tensor, int]]):
    """Adjacent windows of `context` bytes. An item is (bytes, the bytes one further on, its own index)."""

    def __init__(self, text: bytes, context: int = 64) -> None:
        self.context = context
        self.bytes = torch.from_numpy(np.frombuffer(text, dtype=np.uint8).astype(np.int64))

    def __len__(self) -> int:
        return (len(self.bytes) - 1) // self.context

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        start = index * self.context
        window = self.bytes[start : start + self.context + 1]
        return window[:-1], window[1:], index
