"""A chain of stages on an emulated cluster: the example to its end, and a failure that is mended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.ops.resources import example_path
from tests.support.launching import wait_until
from tests.support.mpi import child_environment

pytestmark = pytest.mark.timeout(240)
EXAMPLE = example_path("stages/job.yaml").parent
FAILING = """\
name: chain
stages:
  first: {command: bash -c 'test ! -e bug'}
  second: {after: [first], command: bash -c 'test -e "$HPCRESUME_STAGE_FIRST_RUN/DONE"'}
"""


def verb(cluster: EmulatedCluster, folder: Path, *words: str, code: int = 0) -> str:
    """A verb's standard output."""
    done = subprocess.run([sys.executable, "-m", "hpcresume", *words], cwd=folder, capture_output=True, text=True,
                          env=child_environment(cluster.environ), timeout=120)  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr + logs(folder)
    return done.stdout


def logs(folder: Path) -> str:
    return "".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(folder.glob("slurm-*.out")))


def kinds(out: str) -> list[str]:
    return [each["kind"] for each in json.loads(out)["stages"]]


def test_the_example_runs_to_its_end_and_a_preemption_of_its_middle_keeps_the_end_waiting(tmp_path):
    folder = tmp_path / "e"
    shutil.copytree(EXAMPLE, folder)
    with EmulatedCluster(nodes=1, requeue_delay=0.5) as cluster:
        out = verb(cluster, folder, "submit", "--json", "--set", "stages.train.command=python train.py --steps 100")
        jobs = {each["stage"]: each["job_id"] for each in json.loads(out)["stages"]}
        progress = folder / "runs/fit/train/attempts/0001/progress"
        wait_until(lambda: progress.exists() and progress.read_bytes()[:1] > b"\x05", 100)
        cluster.preempt(jobs["train"])
        assert "finished" in verb(cluster, folder, "watch", "runs/fit", "--ask-every", "1")
        for job in jobs.values():
            assert cluster.wait(job).state == "COMPLETED"
        assert len(cluster.job(jobs["train"]).attempts) == 2
        result = json.loads((folder / "runs/fit/evaluate/result.json").read_text())
        assert result["generation"] == "g000000000100-a0002"
        told = verb(cluster, folder, "why", "runs/fit")
        assert "made from prepare" in told
        assert "train (attempt 2, g000000000100-a0002)" in told
        shown = verb(cluster, folder, "logs", "runs/fit")
        assert [line for line in shown.splitlines() if line.startswith("stage ")] == [
            "stage prepare", "stage train", "stage evaluate"
        ]  # fmt: skip
        assert kinds(verb(cluster, folder, "submit", "--json")) == ["done"] * 3


@pytest.mark.full
def test_a_stage_that_failed_is_mended_and_requeue_goes_on_from_it(tmp_path):
    (tmp_path / "job.yaml").write_text(FAILING)
    (tmp_path / "bug").touch()
    with EmulatedCluster(nodes=1) as cluster:
        jobs = [each["job_id"] for each in json.loads(verb(cluster, tmp_path, "submit", "--json"))["stages"]]
        cluster.wait(jobs[0])
        wait_until(lambda: cluster.job(jobs[1]).reason == "DependencyNeverSatisfied", 30)
        out = verb(cluster, tmp_path, "watch", "runs/chain", "--ask-every", "1", code=77)
        assert (
            f"job {jobs[1]} never starts: first failed (DependencyNeverSatisfied) → hpcresume requeue runs/chain" in out
        )
        os.unlink(tmp_path / "bug")
        assert kinds(verb(cluster, tmp_path, "requeue", "runs/chain", "--json")) == ["submit", "point"]
        assert "finished" in verb(cluster, tmp_path, "watch", "runs/chain", "--ask-every", "1")
        assert verb(cluster, tmp_path, "status", "runs/chain", "--check").count("done") >= 2
