"""States for tests, and equality to the last bit that uses nothing of the package."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch

__all__ = ["bits", "same", "small_state", "tiny_state"]


def tiny_state(step: int) -> dict[str, Any]:
    """Three tensors and three values, for tests that damage every byte."""
    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3) + step
    return {
        "weight": weight,
        "half": {"bias": weight[0].bfloat16(), "ids": np.arange(step, step + 5, dtype=np.int16)},
        "lr": 0.1 * step,
        "note": ["ä\x00", float("nan")],
    }


def small_state(step: int = 1) -> dict[str, Any]:
    """Under 1 KiB of tensors and plain values, different for every step."""
    generator = torch.Generator().manual_seed(step)
    return {
        "model": {
            "weight": torch.randn(6, 5, generator=generator),
            "half": torch.randn(7, generator=generator).bfloat16(),
            "empty": torch.empty(0, 3),
        },
        "optimizer": {"state": {0: {"step": torch.tensor(float(step))}}, "lr": 0.1 + step},
        "numpy": np.arange(step, step + 9, dtype=np.int16),
        "epoch": step,
        "note": "ä\x00",
        "nothing": [None, (True, float("nan"))],
    }


def bits(value: Any) -> Any:
    """A value whose `==` is equality of type, shape and every bit."""
    kind = type(value)
    if isinstance(value, torch.Tensor):
        flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        return ("torch", value.dtype, tuple(value.shape), data)
    if isinstance(value, np.ndarray | np.generic):
        return (kind, value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return (kind, [(bits(key), bits(each)) for key, each in value.items()])
    if isinstance(value, list | tuple):
        return (kind, [bits(each) for each in value])
    if kind is float:
        return (kind, struct.pack("<d", value))
    if kind is complex:
        return (kind, struct.pack("<dd", value.real, value.imag))
    return (kind, value)


def same(a: Any, b: Any) -> bool:
    """Are two states equal to the last bit, in order and type?"""
    return bool(bits(a) == bits(b))
