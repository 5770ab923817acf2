"""docs/FORMAT.md is enough to check and read a generation: a second reader, written from it alone, agrees with ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import hpcresume as hr
from hpcresume.model import GlobalSlice
from hpcresume.ops.resources import example_path
from hpcresume.testing.thread_ranks import run_ranks, unwrap

GRID = np.arange(9 * 11 * 70, dtype=np.float32).reshape(9, 11, 70)
BORDERS = [0, 2, 2, 7, 11]


def saved_by_four(run: Path) -> Path:
    """A generation with every scope: replicated, per rank, one rank's, and strided blocks of a global array."""

    def save(ranks: object) -> Path:
        rank: int = ranks.rank  # type: ignore[attr-defined]
        low, high = BORDERS[rank], BORDERS[rank + 1]
        state = {
            "model": {"weight": torch.arange(5000.0), "half": torch.ones(7, dtype=torch.bfloat16)},
            "grid": GlobalSlice(GRID[:, low:high].copy(), GRID.shape, (0, low, 0)),
            "rng": hr.RankLocal(np.full(3, rank)),
            "odd": hr.RankLocal(np.zeros(rank)),
        }
        return hr.save(run, state, step=1, comm=ranks).path

    return Path(unwrap(run_ranks(4, save))[0])


def read_without_us(generation: Path) -> subprocess.CompletedProcess[str]:
    program = str(example_path("read_without_hpcresume.py"))
    return subprocess.run([sys.executable, program, str(generation)], capture_output=True, text=True, check=False)


def test_a_reader_written_from_the_page_finds_every_byte_right(tmp_path: Path) -> None:
    generation = saved_by_four(tmp_path / "run")
    done = read_without_us(generation)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{generation.name}: every byte matches"
    for name in ("model/weight", "model/half", "grid", "rng", "@rank00003/odd"):
        assert f"{name} " in done.stdout


def test_it_finds_the_same_damage_as_verify(tmp_path: Path) -> None:
    generation = saved_by_four(tmp_path / "run")
    size = (generation / "state.h5").stat().st_size
    for offset in range(0, size, max(1, size // 8)):
        data = bytearray((generation / "state.h5").read_bytes())
        data[offset] ^= 1
        (generation / "state.h5").write_bytes(data)
        theirs = read_without_us(generation)
        ours = hr.Generations(tmp_path / "run").verify(generation.name).damage
        assert theirs.returncode == 1
        assert f"bytes from {ours[0].offset} do not match" in theirs.stderr
        data[offset] ^= 1
        (generation / "state.h5").write_bytes(data)


def test_the_pages_own_python_compiles() -> None:
    page = (Path(__file__).parents[2] / "docs/FORMAT.md").read_text()
    for block in page.split("```python\n")[1:]:
        compile(block.partition("```")[0], "docs/FORMAT.md", "exec")
