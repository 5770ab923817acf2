"""Why a job ended, told right on a real cluster: the facts behind hpcresume.policy.cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.io.paths import RunPaths
from hpcresume.launch.notes import read_notes
from hpcresume.launch.records import past_attempts
from hpcresume.model import Cause
from tests.slurm.cluster import Cluster, root_2411, running_cluster, skip_without_slurm
from tests.slurm.conftest import digest
from tests.slurm.test_budgets import STEADY, Training
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


def lost_second_node(cluster: Cluster, job: Job) -> None:
    """The second of the job's two nodes loses power; back again once the job was started anew."""
    cluster.kill_node("n2")
    try:
        cluster.wait(lambda: job.state().get("Restarts") == "1", f"a restart\n{job.text()}", 90)
    finally:
        cluster.start_node("n2")
        cluster.command("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)


def test_a_lost_node_is_told_as_one_though_mpi_notices_it_before_slurm_does(cluster: Cluster, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path, pause=0.2)
    job.wait_for_step(20)
    lost_second_node(cluster, job)
    cluster.command("scancel", job.id)
    job.wait_until_ended()
    assert job.causes()[0] == "node-failure", job.text()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes, and a database that remembers; nodes that are lost here hurt no other test."""
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("causes") / "c", nodes=4, accounting=True) as running:
        yield running


def evidence(run: Path, attempt: int) -> str:
    """What the record of an attempt gives as its cause's evidence."""
    lines = map(json.loads, (run / f"attempts/{attempt:04d}/supervisor.jsonl").read_text().splitlines())
    return "; ".join([line for line in lines if line["event"] == "cause"][-1]["evidence"])


def up_again(cluster: Cluster, node: str) -> None:
    cluster.start_node(node)
    cluster.command("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)


def goes_on(cluster: Cluster, job: Training, guard: str) -> bool:
    """Whether the guard of a job that is lost trains; False when Slurm loses that one's script too, which it may."""
    second = job.run / "attempts/0002/progress"
    over = ("NODE_FAIL", "FAILED", "BOOT_FAIL", "LAUNCH_FAILED")
    words = f"the guard's start\n{job.text()}"
    cluster.wait(lambda: second.exists() or cluster.job(guard)["JobState"] in over, words, 90)
    return second.exists()


def test_a_guard_that_goes_on_after_a_lost_node_knows_that_from_slurm_and_suspects_the_node(
    wide: Cluster, tmp_path: Path
) -> None:
    """The job may not be requeued, so that its guard goes on: another job, which Slurm never restarted."""
    for number in range(3):
        (folder := tmp_path / str(number)).mkdir()
        job = Training(wide, folder, STEADY, "--guard", sbatch=("--no-requeue",))
        wide.wait(lambda job=job: list((job.run / "attempts").glob("*/progress")), f"a start\n{job.text()}", 60)
        node = wide.job(job.id)["NodeList"]
        guard = job.text().partition("job ")[2].split()[0]
        wide.kill_node(node)
        try:
            if not goes_on(wide, job, guard):
                print(f"Slurm has lost the script of the guard {guard} too")
                continue
            assert wide.job(job.id)["JobState"] == "NODE_FAIL"
            assert wide.job(guard)["JobState"] == "RUNNING"
            assert evidence(job.run, 1).startswith(f"Slurm: job {job.id} ended as NODE_FAIL (Reason=NodeDown")
            (past, *_) = past_attempts(RunPaths(job.run))
            assert past.cause is Cause.NODE_FAILURE
            assert [each.node for each in read_notes(job.run).suspects] == [node]
            up_again(wide, node)
            wide.command("scontrol", "update", f"JobId={guard}", "Requeue=1")
            wide.command("scancel", "--batch", "--signal=USR1", guard)
            wide.wait(lambda: wide.job(guard)["ExcNodeList"] == node, f"a requeue of the guard\n{job.text()}", 30)  # noqa: B023
            return
        finally:
            up_again(wide, node)
            wide.command("scancel", job.id, guard, check=False)
    pytest.fail("Slurm has lost the script of three guards in a row")


def warned_as_the_command_line_asks(cluster: Cluster, out: Path) -> None:
    """The script asks for it 30 s before the limit; the command line, which counts, 440 s before."""
    job = Training(cluster, out, STEADY, sbatch=("--time=8", "--signal=B:USR1@440"))
    record = job.run / "attempts/0001/supervisor.jsonl"
    cluster.wait(lambda: record.exists() and '"ended"' in record.read_text(), f"an end\n{job.text()}", 120)
    cluster.command("scancel", job.id)
    assert "before the time limit" in evidence(job.run, 1), job.text()
    assert past_attempts(RunPaths(job.run))[0].cause is Cause.WALLTIME


def test_a_warning_asked_for_on_the_command_line_is_known_where_slurm_remembers_it(
    wide: Cluster, tmp_path: Path
) -> None:
    warned_as_the_command_line_asks(wide, tmp_path)


@pytest.mark.full
def test_on_24_11_too(tmp_path: Path) -> None:
    skip_without_slurm()
    with running_cluster(tmp_path / "c", nodes=1, root=root_2411(), accounting=True) as accounted:
        out = tmp_path / "out"
        out.mkdir()
        warned_as_the_command_line_asks(accounted, out)
