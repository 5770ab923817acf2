"""examples/gpt: the two programs do the same training, and say truly what they did."""

from __future__ import annotations

import ast
import difflib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hpcresume.ops.resources import example_path
from tests.support.mpi import mpiexec

STEPS, BATCH, RANKS = 6, 2, 2
TEXT = 64 * 17 + 1
"""17 windows: with 8 samples a step, 6 steps go through two epochs and into a third."""


def train(program: str, out: Path, *options: str) -> None:
    """Run one of the programs for a few steps on two ranks."""
    arguments = [f"--steps={STEPS}", f"--batch-size={BATCH}", f"--text-bytes={TEXT}", f"--out={out}", *options]
    ended = mpiexec(RANKS, [sys.executable, str(example_path(f"gpt/{program}")), *arguments], timeout=120)
    assert ended.returncode == 0, ended.stderr


def trace(out: Path) -> dict[int, list[tuple[int, str, str, list[int]]]]:
    """Rank → what it did in each step."""
    lines = {}
    for path in out.glob("trace-*.jsonl"):
        head, *steps = [json.loads(line) for line in path.read_text().splitlines()]
        assert head["world_size"] == RANKS
        lines[head["rank"]] = [(s["step"], s["loss"], s["local"], s["samples"]) for s in steps]
    return lines


def final(out: Path, rank: int) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What a rank had in the end: name → dtype, shape, bytes."""
    with np.load(out / f"final-{rank:04d}.npz", allow_pickle=False) as arrays:
        return {name: (str(arrays[name].dtype), arrays[name].shape, arrays[name].tobytes()) for name in arrays.files}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The folder of one plain training."""
    out = tmp_path_factory.mktemp("plain")
    train("plain.py", out)
    return out


@pytest.mark.mpi
def test_the_plain_loop_gives_the_same_bits_twice(plain, tmp_path):
    train("plain.py", tmp_path)
    assert trace(tmp_path) == trace(plain)
    assert all(final(tmp_path, rank) == final(plain, rank) for rank in range(RANKS))


@pytest.mark.mpi
def test_the_plain_loop_sees_every_sample_once_an_epoch_in_the_documented_order(plain):
    ranks = trace(plain)
    per_step = 2 * RANKS * BATCH
    seen = []
    for step in range(STEPS):
        own = [ranks[rank][step][3] for rank in range(RANKS)]
        for micro in range(2):
            seen += [index for samples in own for index in samples[micro * BATCH : (micro + 1) * BATCH]]
    count = (TEXT - 1) // 64
    order = [np.argsort(np.random.Philox(key=[0, epoch]).random_raw(count), kind="stable") for epoch in range(3)]
    assert seen == np.concatenate(order)[: STEPS * per_step].tolist()


@pytest.mark.mpi
def test_ranks_agree_on_the_model_and_differ_in_their_generators(plain):
    first, second = final(plain, 0), final(plain, 1)
    differing = {name for name in first if first[name] != second[name]}
    assert {name for name in differing if not name.startswith("rng/")} == set()
    assert {"rng/torch", "rng/numpy", "rng/python"} <= differing


@pytest.mark.mpi
def test_the_training_with_hpcresume_gives_the_bits_of_the_plain_loop(plain, tmp_path):
    train("train.py", tmp_path / "out", f"--run={tmp_path / 'run'}", "--every=2 steps")
    assert trace(tmp_path / "out") == trace(plain)
    assert all(final(tmp_path / "out", rank) == final(plain, rank) for rank in range(RANKS))
    assert (tmp_path / "run" / "DONE").exists()
    assert any((tmp_path / "run" / "generations").iterdir())


@pytest.mark.mpi
def test_dataloader_workers_change_nothing(plain, tmp_path):
    train("train.py", tmp_path / "out", f"--run={tmp_path / 'run'}", "--workers=1")
    assert trace(tmp_path / "out") == trace(plain)
    assert all(final(tmp_path / "out", rank) == final(plain, rank) for rank in range(RANKS))


def test_only_train_imports_hpcresume():
    users = {
        path.name
        for path in example_path("gpt/train.py").parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if "hpcresume" in {getattr(node, "module", None), *(a.name for a in getattr(node, "names", []))}
    }
    assert users == {"train.py"}


def test_the_loop_of_train_differs_from_the_plain_one_in_a_handful_of_lines():
    bodies = [
        ast.unparse(next(n for n in ast.parse(example_path(f"gpt/{name}.py").read_text()).body
                         if getattr(n, "name", "") == "main")).splitlines()
        for name in ("plain", "train")
    ]  # fmt: skip
    plain, with_hpcresume = ([line.strip() for line in body] for body in bodies)
    added = [line for line in difflib.ndiff(plain, with_hpcresume) if line.startswith("+ ")]
    assert 0 < len(added) <= 12, added
