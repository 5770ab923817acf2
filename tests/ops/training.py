"""Trainings written by hand, in the format of examples/gpt/README.md."""

import json
from pathlib import Path

import numpy as np

RANKS, STEPS = 2, 6


def samples_of(rank: int, step: int) -> list[int]:
    return [step * 10 + rank * 2, step * 10 + rank * 2 + 1]


def write_trace(folder: Path, rank: int, restart: int, steps: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"trace-{rank:04d}-{restart:04d}-77.jsonl"
    lines = [{"rank": rank, "world_size": RANKS, "restart": restart, "pid": 77, "t": 0.0}]
    for step in steps:
        loss, local = (3.0 - step / 7).hex(), (3.0 - step / 7 + rank / 3).hex()
        t = 100.0 * restart + step
        lines.append({"step": step, "loss": loss, "local": local, "samples": samples_of(rank, step), "t": t})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_final(folder: Path, rank: int) -> Path:
    path = folder / f"final-{rank:04d}.npz"
    arrays = {
        "model/w": np.arange(8, dtype=np.float32),
        "optimizer/0/exp_avg": np.full(8, 0.25, np.float32),
        "rng/torch": np.arange(16, dtype=np.uint8) + rank,
    }
    np.savez(path, **arrays)
    return path


def write_reference(folder: Path) -> Path:
    for rank in range(RANKS):
        write_trace(folder, rank, 0, range(STEPS))
        write_final(folder, rank)
    return folder


def write_interrupted(folder: Path) -> Path:
    """Start 0 does the steps 0 to 3 and dies; start 1 goes on from 2 to the end: 2 and 3 were lost."""
    for rank in range(RANKS):
        write_trace(folder, rank, 0, range(4))
        write_trace(folder, rank, 1, range(2, STEPS))
        write_final(folder, rank)
    return folder


def owner(step: int) -> int:
    return 0 if step < 2 else 1
