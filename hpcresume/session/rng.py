"""The random number generators of this process: python, numpy's global one, torch on the CPU and every GPU.

Torch counts only if the program itself has imported it. Knows no rank; the caller says who it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.random  # numpy 2 loads it lazily, and its generator has to be seeded and kept from the first step on

from hpcresume.checkpoint import arrays, tree

__all__ = ["capture", "derive", "kept", "restore", "seed_all", "seed_on_host"]


def capture() -> dict[str, Any]:
    """The state of all generators, as a state tree."""
    found = _capture_on_host()
    torch = sys.modules.get("torch")
    # Asking an uninitialised CUDA for its state would initialise it, and nothing can have been drawn yet.
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["cuda"] = list(torch.cuda.get_rng_state_all())
    return found


def _capture_on_host() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    python = {"version": version, "words": np.array(words, dtype=np.uint32), "gauss": gauss}
    found: dict[str, Any] = {"python": python}
    found["numpy"] = _plain_ints(np.random.get_state(legacy=False))
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = torch.random.get_rng_state()
    return found


def _plain_ints(state: Any) -> Any:
    """Numpy's state dict, with the dict subclasses and numpy integers that some versions put in made plain."""
    if isinstance(state, dict):
        return {str(key): _plain_ints(value) for key, value in state.items()}
    return state.item() if isinstance(state, np.generic) else state


def restore(saved: dict[str, Any]) -> list[str]:
    """Set all generators to a captured state.

    Returns:
        What could not be restored, one sentence each (GPUs that are not there).
    """
    python = saved["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    if "numpy" in saved:
        np.random.set_state(saved["numpy"])
    if "torch" not in saved:
        return []
    import torch

    torch.random.set_rng_state(saved["torch"])
    return _restore_gpus(torch, saved.get("cuda", []))


def _restore_gpus(torch: Any, saved: list[Any]) -> list[str]:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, state in enumerate(saved[:there]):
        torch.cuda.set_rng_state(state, device)
    return [f"the generator of GPU {device}, which is not there" for device in range(there, len(saved))]


def derive(saved_by_rank_0: dict[str, Any], *, step: int, rank: int, world_size: int) -> bytes:
    """32 bytes that seed rank `rank` of another world size than the saved one: a function of these four only."""
    digest = hashlib.sha256(f"{step}:{rank}:{world_size}".encode())
    for leaf in tree.flatten(saved_by_rank_0)[1]:
        digest.update(tree.path_text(leaf.path).encode())
        array = leaf.kind == "array"
        digest.update(arrays.as_bytes(leaf.value).tobytes() if array else repr(leaf.value).encode())
    return digest.digest()


def seed_all(seed: bytes) -> None:
    """Seed every generator whose library is imported from 32 bytes."""
    number = int.from_bytes(seed, "little")
    random.seed(number)
    np.random.seed(np.frombuffer(seed, dtype=np.uint32))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(number % 2**63)


def seed_on_host(number: int) -> None:
    """Seed the generators of the CPU from 64 bits; some 20 µs."""
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(number)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Whatever the block draws on the CPU, the generators stand afterwards where they stood before."""
    torch = sys.modules.get("torch")
    python = random.getstate()
    state = np.random.get_state()
    tensor = None if torch is None else torch.random.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(state)
        if torch is not None:
            torch.random.set_rng_state(tensor)
