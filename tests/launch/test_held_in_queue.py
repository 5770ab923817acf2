"""A crash loop in the emulated cluster: held in the queue with its reason, released, finished. On a real one the same
is in tests/slurm/test_budgets.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.emulate.cluster import EmulatedCluster
from tests.support.launching import wait_until

pytestmark = pytest.mark.timeout(90)
CRASHING = Path(__file__).parents[1] / "slurm" / "crashing.py"


def test_a_crash_loop_is_held_where_squeue_says_why_and_a_release_goes_on(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(hr.__file__).parents[1]))
    run, log, bug = tmp_path / "run", tmp_path / "log", tmp_path / "bug"
    bug.touch()
    launch = f"{sys.executable} -m hpcresume launch --run {run} --mpi direct --pause off --max-crashes 2"
    script = tmp_path / "job.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --requeue --open-mode=append --output={log} --comment=mine\n"
        f"exec {launch} -- {sys.executable} {CRASHING} {run} {tmp_path}\n"
    )
    with EmulatedCluster(nodes=1, requeue_delay=0.0) as cluster:
        job = cluster.submit(str(script))

        def slurm(*words: str) -> str:
            return subprocess.run(words, env=cluster.environ, capture_output=True, text=True, timeout=30).stdout.strip()

        def shown() -> str:
            return slurm("squeue", "--noheader", "--states=all", "--format=%T|%r|%k", f"--jobs={job}")

        wait_until(lambda: shown().startswith("PENDING|job_requeued_in_held_state|"), 60)
        said = "hpcresume: 2 attempts ended by crash without checkpoint progress (limit 2); "
        assert shown().partition("held_state|")[2] == f"{said}scontrol release {job} lets it go on | mine"
        bug.unlink()
        slurm("scontrol", "release", str(job))
        cluster.wait(job)
        assert cluster.job(job).state == "COMPLETED", log.read_text()
        assert shown().endswith("|mine")
    assert (run / "DONE").exists()
    assert "fresh budgets" in log.read_text()
