"""Runs with real generations, and the command line called in this process."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.cli.main import main


def state(step: int) -> dict:
    local = hr.RankLocal({"position": np.arange(4), "loss": float("nan"), "raw": b"\x00\xff"})
    weights = np.arange(2000, dtype=np.float32) + step
    return {"model": {"w": weights, "scale": np.float32(2.0)}, "rng": local, "epoch": step}


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with the generations 10, 20 and 30 of attempt 1."""
    path = tmp_path / "run"
    for step in (10, 20, 30):
        hr.save(path, state(step), step=step)
    return path


@pytest.fixture
def public_run(run):
    """The run `run`, where and so that nobody in particular may read it."""
    with tempfile.TemporaryDirectory(prefix="hpcresume-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copytree(run, place / "run")
        for path in [place / "run", *(place / "run").rglob("*")]:
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        yield place / "run"
        for path in [place / "run", *(place / "run").iterdir(), *(place / "run/attempts").iterdir()]:
            path.chmod(0o700)


def flip_bit(generation: Path, tensor: str) -> int:
    """Flip one bit in the middle of a tensor on disk; return the byte's offset in the file."""
    (found,) = [g for g in hr.Generations(generation.parent.parent).list() if g.path == generation]
    info = found.tensors[tensor]
    offset = info.offset + info.nbytes // 2
    file = os.open(generation / info.file, os.O_RDWR)
    try:
        before = os.pread(file, 1, offset)
        os.pwrite(file, bytes([before[0] ^ 4]), offset)
        assert os.pread(file, 1, offset) != before, "the bit must have flipped"
    finally:
        os.close(file)
    return offset


@pytest.fixture
def cli(capsys):
    """Call the command line: `cli("ls", path)` gives (exit code, stdout, stderr)."""

    def call(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def cli_json(cli):
    """Call the command line with --json: (exit code, the object), after checking that there is no more."""

    def call(*words):
        code, out, _ = cli(*words, "--json")
        return code, json.loads(out)

    return call
