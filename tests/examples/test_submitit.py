"""examples/submitit as a user runs it: submits, waits, shows; warned in the middle, the same table comes out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hpcresume.ops.resources import example_path
from tests.support.launching import wait_until
from tests.support.mpi import child_environment

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, str(example_path("submitit/submit.py")), "--out", str(out), *options]


def run(out: Path, *options: str) -> list[tuple[str, ...]]:
    """The rows of the table."""
    done = subprocess.run(
        command(out, *options), env=child_environment(), capture_output=True, text=True, timeout=150, cwd=out
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return rows(done.stdout)


def rows(text: str) -> list[tuple[str, ...]]:
    found = [tuple(line.split()) for line in text.splitlines() if re.match(r" +[0-9.]+ +[0-9.]+ ", line)]
    assert found, text
    return found


def progressed(out: Path, index: int) -> bool:
    path = out / f"sweep-{index}/attempts/0001/progress"
    return path.exists() and path.read_bytes()[:1] > b"\x05"


def test_two_jobs_that_are_preempted_find_what_undisturbed_ones_find(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    options = ("--cluster", "local", "--rates", "0.1", "1", "--steps", "150")
    undisturbed = run(tmp_path / "a", *options)
    assert [row[0] for row in undisturbed] == ["1", "0.1"], "the best first"
    process = subprocess.Popen(
        command(tmp_path / "b", *options), env=child_environment(), stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    wait_until(lambda: progressed(tmp_path / "b", 0) and progressed(tmp_path / "b", 1))
    for each in psutil.Process(process.pid).children(recursive=True):
        if "submitit.core._submit" in each.cmdline():
            os.kill(each.pid, signal.SIGUSR2)
    out, _ = process.communicate(timeout=120)
    assert [row[:3] for row in rows(out)] == [row[:3] for row in undisturbed]
    assert [row[3] for row in rows(out)] == ["2", "2"]
    decision = json.loads((tmp_path / "b/sweep-0/attempts/0001/decision.json").read_text())
    assert decision["reason"] == "warned by SIGUSR2"


@pytest.mark.full
def test_two_ranks_a_job_and_the_debug_executor(tmp_path):
    both = run(tmp_path, "--cluster", "local", "--rates", "1", "--steps", "20", "--ranks", "2")
    assert [row[3:] for row in both] == [("1", "0/2"), ("1", "1/2")]
    assert both[0][:3] == both[1][:3], "the ranks of a job hold the same weights"
    (tmp_path / "debug").mkdir()
    alone = run(tmp_path / "debug", "--cluster", "debug", "--rates", "1", "--steps", "20")
    assert [row[3:] for row in alone] == [("1", "0/1")]


@pytest.mark.full
@pytest.mark.mpi
def test_on_slurm_it_is_an_array_whose_ranks_all_report(tmp_path):
    """As typed in `hpcresume emulate shell`, where sbatch is found."""
    cluster = [sys.executable, "-m", "hpcresume", "emulate", "shell", "-N2", "--quiet", "--"]
    environ = child_environment({"OMPI_MCA_btl": "^ofi"})
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    done = subprocess.run(
        [*cluster, *command(tmp_path, "--rates", "0.1", "1", "--steps", "20", "--ranks", "2")],
        env=environ, capture_output=True, text=True, timeout=150, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[0] for row in rows(done.stdout)] == ["1", "1", "0.1", "0.1"]
    assert [row[3:] for row in rows(done.stdout)] == [("1", "0/2"), ("1", "1/2")] * 2
    assert re.search(r"job \d+_0: learning rate 0.1", done.stdout)


def test_the_readme_names_every_option_and_file():
    text = example_path("submitit/README.md").read_text()
    for word in ("submit.py", "train.py", "--cluster local", "--cluster debug", "--ranks 2", "hr.Resumable"):
        assert word in text
