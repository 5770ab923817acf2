"""Warnings that reach the ranks alone, in an emulated cluster: the supervisor learns of them, and of their deadline."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.emulate.nodes import Partition
from tests.support.launching import ledger, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = """\
import sys, time
import hpcresume as hr
with hr.session(sys.argv[1], every="1000 steps") as s:
    s["x"] = 0
    for step in s.steps(400):
        if s.attempt == 1:
            time.sleep(0.05)
"""


def submit(cluster: EmulatedCluster, folder: Path, signal: str) -> str:
    (folder / "train.py").write_text(TRAINING)
    (folder / "job.sbatch").write_text(
        f"#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 --time=10 --signal={signal}\n"
        f"trap '' USR1\n"
        f"exec {sys.executable} -m hpcresume launch --run run -- {sys.executable} train.py run\n"
    )
    return cluster.submit(folder / "job.sbatch", cwd=folder)


def wait_for_step(run: Path) -> None:
    progress = run / "attempts/0001/progress"
    wait_until(lambda: progress.exists() and progress.read_bytes()[:1] > b"\x02", 60)


def cause(run: Path) -> str:
    return [line["cause"] for line in ledger(run, 1) if line["event"] == "ended"][-1]


def test_the_deadline_of_a_preemption_that_warns_the_ranks_only_is_recorded(tmp_path):
    partitions = (Partition("low", tier=1, grace=20.0), Partition("high", tier=10))
    with EmulatedCluster(nodes=1, partitions=partitions) as cluster:
        job = submit(cluster, tmp_path, "USR1@30")
        wait_for_step(tmp_path / "run")
        at = time.time()
        cluster.preempt(job)
        cluster.wait(job, timeout=90)
    deadline = json.loads((tmp_path / "run/attempts/0001/deadline.json").read_text())
    assert (deadline["source"], deadline["cause"]) == ("scontrol", "preempted")
    assert deadline["unix"] == pytest.approx(at + 20, abs=3)
    assert "warning-received" not in [line["event"] for line in ledger(tmp_path / "run", 1)]
    assert cause(tmp_path / "run") == "preempted"


@pytest.mark.parametrize("whom", [[], ["--batch"], ["--full"]])
def test_a_person_s_warning_long_before_the_asked_one_is_a_person_s(tmp_path, whom):
    """Ten minutes before the end of a job that asked to be warned 20 seconds before it."""
    with EmulatedCluster(nodes=1) as cluster:
        job = submit(cluster, tmp_path, "B:USR1@20")
        wait_for_step(tmp_path / "run")
        cluster.run("scancel", *whom, "--signal=USR1", job)
        cluster.wait(job, timeout=90)
    assert cause(tmp_path / "run") == "operator"
