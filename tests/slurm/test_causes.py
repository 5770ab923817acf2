"""Why a job ended, told right on a real cluster: the facts behind hpcresume.policy.cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import digest
from tests.slurm.test_launch import Job, assert_same

pytestmark = pytest.mark.timeout(240)


def preempt(cluster: Cluster, out: Path) -> None:
    """Let a job of the high partition want both nodes."""
    high = out / "high.sh"
    high.write_text("#!/bin/sh\nsleep 2\n")
    cluster.submit(high, "--partition=high", "--nodes=2", "--exclusive", f"--output={out / 'high.log'}")


def over(job: Job) -> bool:
    return job.state()["JobState"] not in ("RUNNING", "PENDING", "COMPLETING")


def test_scontrol_requeue_by_a_person_is_the_operators_doing_and_the_job_comes_back_once(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(cluster, tmp_path)
    job.wait_for_step(20)
    cluster.command("scontrol", "requeue", job.id)
    job.wait_until_ended()
    assert_same(job, uninterrupted, attempts=2)
    assert job.causes() == ["operator", "done"]


def test_a_cancelled_job_stays_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path)
    job.wait_for_step(20)
    cluster.command("scancel", job.id)
    ended = job.wait_until_ended()
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")
    assert job.causes() == ["operator"]


def test_a_preemption_that_warns_the_ranks_only_is_told_as_one(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(cluster, tmp_path, "--signal=USR1@30")
    job.wait_for_step(20)
    preempt(cluster, tmp_path)
    job.wait_until_ended()
    assert_same(job, uninterrupted, attempts=2)
    assert job.causes() == ["preempted", "done"]


@pytest.mark.slurm_versions
@pytest.mark.parametrize("grace", [0, 20])
def test_a_partition_that_cancels_whom_it_preempts_does_not_end_the_run(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path, grace: int
) -> None:
    """PreemptMode=CANCEL: Slurm starts nothing again; without a grace it looks like scancel."""
    name = f"fleeting{grace}"
    cluster.command("scontrol", "create", f"PartitionName={name}", "Nodes=ALL", "PreemptMode=CANCEL", "PriorityTier=1",
                    f"GraceTime={grace}", "State=UP")  # fmt: skip
    job = Job(cluster, tmp_path, f"--partition={name}")
    try:
        job.wait_for_step(20)
        preempt(cluster, tmp_path)
        # 24.11 calls the job PREEMPTED even after its second life has exited with 0.
        cluster.wait(lambda: (job.run / "DONE").exists() and over(job), f"end of the run\n{job.text()}", 150)
        assert digest(tmp_path) == uninterrupted["digest"], job.text()
        assert job.causes() == ["preempted", "done"]
    finally:
        cluster.command("scancel", job.id, check=False)
        cluster.wait(lambda: over(job), "its end")
        cluster.command("scontrol", "delete", f"PartitionName={name}")


def test_a_job_that_asked_for_no_warning_comes_back_after_its_time_limit_all_the_same(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Slurm never requeues after a time limit; the supervisor asks for it within the end sequence."""
    job = Job(cluster, tmp_path, "--time=1", "--signal=B:USR2@0", pause=0.7)
    cluster.wait(lambda: job.state().get("Restarts") == "1", f"a restart\n{job.text()}", 150)
    cluster.command("scancel", job.id)
    job.wait_until_ended()
    assert job.causes()[0] == "walltime", job.text()


def test_a_lost_node_brings_the_job_back(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, pause=0.2)
    job.wait_for_step(20)
    cluster.kill_node("n2")
    try:
        cluster.wait(lambda: job.state().get("Restarts") == "1", f"a restart\n{job.text()}", 90)
    finally:
        cluster.start_node("n2")
        cluster.command("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)
    cluster.command("scancel", job.id)
    job.wait_until_ended()
    # MPI notices within a second, Slurm after its SlurmdTimeout: if the ranks are gone by then, all that is known
    # is how they died.
    assert job.causes()[0] in {"node-failure", "crash"}, job.text()
