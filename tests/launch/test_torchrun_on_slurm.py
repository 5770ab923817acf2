"""torchrun on a real cluster of two nodes: preempted by another partition, requeued, the same training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.launch.test_torchrun import STEPS, TRAINING, event, finals, losses, same_training, started, uninterrupted
from tests.slurm.cluster import running_cluster, skip_without_slurm
from tests.support.mpi import child_environment
from tests.support.sampling import sampled

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(280)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("slurm") / "c") as running:
        yield running


@pytest.mark.parametrize("warning", sampled(["B:USR1@60", "USR1@60"], lambda warning: warning.startswith("B:")))
def test_a_preempted_job_of_two_nodes_comes_back_bit_for_bit(tmp_path, cluster, warning):
    out, run, script = tmp_path / "out", tmp_path / "run", tmp_path / "job.sh"
    out.mkdir()
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append\n"
        f"cd {ROOT}\nexport PYTHONPATH={child_environment()['PYTHONPATH']} OMP_NUM_THREADS=1\n"
        f"exec {sys.executable} -m hpcresume launch --run {run} --mpi torchrun --workers-per-node 2 -- "
        f"{TRAINING} {run} {out} {STEPS} 0.2\n"
    )
    job = cluster.submit(script, f"--signal={warning}", f"--output={tmp_path}/log")
    cluster.wait(lambda: started(out, 4), "steps", 90)
    cluster.command("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    cluster.wait(lambda: cluster.job(job)["JobState"] in ("COMPLETED", "FAILED"), "end of the job", 150)
    said = (tmp_path / "log").read_text()
    assert (cluster.job(job)["JobState"], cluster.job(job)["Restarts"]) == ("COMPLETED", "1"), said
    assert event(run, "ended")["cause"] == "preempted"
    assert len(finals(out, 4)) == 4
    assert [len(losses(out, rank)) for rank in range(4)] == [int(STEPS)] * 4
    (tmp_path / "reference").mkdir()
    same_training(out, uninterrupted(tmp_path / "reference", 4), 4)
