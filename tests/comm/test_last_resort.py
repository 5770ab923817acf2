"""Ranks that fail, or sleep, where nobody waits for them yet: their peers end soon, and say why. Real processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.mpi import mpiexec

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60)]

SCRIPT = """
import sys, time
from mpi4py import MPI
rank = MPI.COMM_WORLD.rank
import hpcresume as hr
{before}
with hr.session(sys.argv[1], {options}) as s:
    open(sys.argv[1] + "-opened", "w").close()
    for _ in s.steps(3):
        pass
"""
SOON = 25.0
"""Seconds: the start of two ranks on a busy machine, and mpiexec's clearing up. Without help it is for ever."""


def run_two(tmp_path: Path, before: str = "", options: str = "", **env: str):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(before=before, options=options))
    began = time.monotonic()
    done = mpiexec(2, [sys.executable, str(script), str(tmp_path / "run")], env, timeout=2 * SOON)
    assert time.monotonic() - began < SOON
    assert not (tmp_path / "run-opened").exists(), "nobody may come into the block without the other"
    return done


def test_a_wrong_option_on_one_rank_only_ends_both_with_its_exit_code(tmp_path):
    done = run_two(tmp_path, options="every='nonsense' if rank == 1 else 'auto'")
    assert done.returncode == 78, done.stderr
    assert "nonsense" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"), [("ValueError('a bug')", 1), ("hr.errors.UsageError('a bug')", 64)], ids=["any", "ours"]
)
def test_an_uncaught_error_before_the_session_ends_the_peers_of_a_supervised_rank(tmp_path, error, code):
    done = run_two(tmp_path, f"if rank == 1: raise {error}", HPCRESUME_SUPERVISED="1")
    assert done.returncode == code, done.stderr
    assert "a bug" in done.stderr
    assert "Traceback" in done.stderr


def test_a_rank_that_never_comes_to_the_session_ends_the_others_after_the_watchdogs_wait(tmp_path):
    done = run_two(tmp_path, "if rank == 1: time.sleep(600)", "watchdog='3s'")
    assert done.returncode == 71, done.stderr
    assert "has waited 3 s to meet the other ranks" in done.stderr
    assert "some rank never came" in done.stderr


def test_a_rank_that_is_only_late_harms_nobody_however_long_the_program_goes_on(tmp_path):
    script = tmp_path / "train.py"
    text = SCRIPT.format(before="if rank == 1: time.sleep(1)", options="watchdog='4s'")
    script.write_text(text.replace("        pass", "        time.sleep(1.5)"))
    done = mpiexec(2, [sys.executable, str(script), str(tmp_path / "run")])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "DONE").exists()
    assert "waited" not in done.stderr


def test_an_error_that_somebody_catches_ends_nobody(tmp_path):
    before = "try:\n    raise ValueError\nexcept ValueError:\n    pass\nhook = sys.excepthook\nimport hpcresume"
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(before=before, options=""))
    done = mpiexec(2, [sys.executable, str(script), str(tmp_path / "run")], {"HPCRESUME_SUPERVISED": "1"})
    assert done.returncode == 0, done.stderr
