"""A submitit script that holds everything, as README writes it, run as its user would: `python one_file.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mpi import child_environment

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

SCRIPT = Path(__file__).with_name("one_file.py")
HPCRESUME = [sys.executable, "-m", "hpcresume"]


@pytest.mark.parametrize("cluster", ["debug", "local", "slurm"])
def test_a_function_of_the_script_itself_is_submitted_and_its_result_comes_back(tmp_path, cluster):
    shell = [*HPCRESUME, "emulate", "shell", "--"] if cluster == "slurm" else []
    done = subprocess.run(
        [*shell, sys.executable, str(SCRIPT), cluster],
        cwd=tmp_path, env=child_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "45.0"
