"""Out of memory, end to end in the emulated cluster: batches are cut until they fit; the gradient stays the same."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.config.timetable import EmulatedJob
from hpcresume.emulate.job import emulate
from hpcresume.errors import ConfigError
from tests.docs.blocks import blocks
from tests.support.launching import ledger
from tests.support.sampling import sampled

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(90)]
PROGRAM = Path(__file__).with_name("short_of_memory.py")
STEPS = 12


@pytest.fixture(autouse=True)
def _children_import_what_we_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(hr.__file__).parents[1]))


def train(out: Path, fits: int, how: str, most: int):
    """Emulate the training; its result, the causes of its attempts, and each rank's final facts."""
    out.mkdir()
    run, log = out / "run", io.BytesIO()
    command = (sys.executable, str(PROGRAM), str(run), str(STEPS), str(out), str(fits), how)
    options = ("--run", str(run), "--micro-batches", str(most))
    job = EmulatedJob(command, nodes=1, tasks_per_node=2, requeue_delay=0.0, launch_options=options)
    result = emulate(job, output=log)
    numbers = sorted(int(path.name) for path in (run / "attempts").iterdir())
    causes = [next(e["cause"] for e in reversed(ledger(run, n)) if e["event"] == "ended") for n in numbers]
    finals = [json.loads(path.read_text()) for path in sorted(out.glob("?.json"))]
    return result, causes, finals, log.getvalue().decode()


@pytest.mark.parametrize("how", sampled(["raise", "kill"], lambda how: how == "kill"))
def test_batches_are_cut_until_they_fit_and_train_on_the_same_samples(tmp_path: Path, how: str):
    result, causes, cut, log = train(tmp_path / "short", 8, how, 16)
    named = "out-of-memory" if how == "raise" else "crash"
    assert causes == [named, named, "done"], log
    assert result.exit_code == 0, log
    assert [facts["pieces"] for facts in cut] == [4, 4]
    _, causes, whole, log = train(tmp_path / "plenty", 32, how, 16)
    assert causes == ["done"], log
    assert [facts["pieces"] for facts in whole] == [1, 1]
    assert [facts["seen"] for facts in cut] == [facts["seen"] for facts in whole]
    np.testing.assert_allclose(cut[0]["weights"], whole[0]["weights"], rtol=1e-12)


@pytest.mark.full
def test_what_does_not_fit_in_the_smallest_pieces_either_is_held_after_one_more_try(tmp_path: Path):
    result, causes, finals, log = train(tmp_path / "never", 1, "raise", 4)
    assert causes == ["out-of-memory"] * 4, log
    assert result.exit_code == 77
    assert "cut into 4 pieces" in log
    assert finals == []


@pytest.mark.full
def test_without_the_rule_it_is_held_at_once(tmp_path: Path):
    result, causes, _, log = train(tmp_path / "off", 8, "raise", 1)
    assert causes == ["out-of-memory"] * 2, log
    assert result.exit_code == 77


def test_the_number_of_pieces_is_one_unless_the_supervisor_says_otherwise(tmp_path: Path, monkeypatch):
    with hr.session(tmp_path / "run", comm="single", signals=()) as s:
        assert s.micro_batches == 1
        for _ in s.steps(1):
            pass
    monkeypatch.setenv("HPCRESUME_MICRO_BATCHES", "8")
    assert hr.session(tmp_path / "other", comm="single").micro_batches == 8
    monkeypatch.setenv("HPCRESUME_MICRO_BATCHES", "many")
    with pytest.raises(ConfigError, match="HPCRESUME_MICRO_BATCHES"):
        hr.session(tmp_path / "third", comm="single")


def test_the_training_of_the_page_runs(tmp_path: Path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "REQUEUE.md"
    (program,) = (block.text for block in blocks(page) if block.language == "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCRESUME_MICRO_BATCHES", "3")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/small-batches/DONE").exists()
