"""Jobs that used to stay away, or to come back as less than they were: on a real cluster each of them comes back."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcresume as hr
from tests.integrations.trainings import expected, train
from tests.slurm.cluster import Cluster, root_2411, running_cluster, skip_without_slurm
from tests.slurm.test_budgets import CRASHING, STEADY, Training
from tests.slurm.test_requeue import without_scontrol
from tests.support.lacking import needed
from tests.support.mpi import AS_ROOT, child_environment

pytestmark = pytest.mark.timeout(300)


def test_a_first_start_that_ends_before_any_session_waits_in_the_queue_with_the_reason(
    cluster: Cluster, tmp_path: Path
):
    """It ended, and with it went the job that stood behind it: nobody was left to come back."""
    program = tmp_path / "train.py"
    job = Training(cluster, tmp_path, program, "--guard")
    try:
        cluster.wait(lambda: "held" in job.squeue("Reason:60"), f"a held job\n{job.text()}", 60)
        shown = job.squeue("Comment:200")
        assert shown.startswith("hpcresume: the ranks ended with exit code 2 before any session"), shown
        assert f"scontrol release {job.id}" in shown
        shutil.copy(CRASHING, program)
        cluster.command("scontrol", "release", job.id)
        job.wait_for("COMPLETED")
        assert (job.run / "DONE").exists(), job.text()
    finally:
        cluster.command("scancel", job.id, check=False)


# ---- submitted again


@pytest.fixture(scope="module")
def forbidding(slurm_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A site that requeues nothing unless asked, with licences, and a feature on its nodes."""
    skip_without_slurm()
    root = None if slurm_name == "installed" else root_2411()
    extra = {"JobRequeue": "0", "Licenses": "solver:4"}
    with running_cluster(tmp_path_factory.mktemp("again") / "c", nodes=3, root=root, extra=extra) as running:
        running.command("scontrol", "update", "NodeName=n[1-3]", "AvailableFeatures=ib", "ActiveFeatures=ib")
        yield running


ASKED = ("Requeue", "TimeLimit", "Features", "Licenses", "ExcNodeList", "Nice", "OverSubscribe", "NumNodes", "NumTasks",
         "Partition", "Comment")  # fmt: skip


@pytest.mark.slurm_versions
def test_a_job_that_is_submitted_again_asks_for_all_that_was_said_on_sbatchs_command_line(
    forbidding: Cluster, tmp_path: Path
):
    said = ("--no-requeue", "--time=8", "--constraint=ib", "--licenses=solver:2", "--exclude=n3", "--nice=20",
            "--exclusive", "--comment=project-X")  # fmt: skip
    first = Training(forbidding, tmp_path, STEADY, "--no-guard", sbatch=said)
    try:
        forbidding.wait((first.run / "attempts/0001/progress").exists, f"a start\n{first.text()}", 60)
        before = forbidding.job(first.id)
        forbidding.command("scancel", "--batch", "--signal=USR1", first.id)
        forbidding.wait(lambda: "goes on when this one is over" in first.text(), f"another job\n{first.text()}", 60)
        again = first.text().partition(" goes on when this one is over")[0].rpartition(" ")[2]
        forbidding.wait(lambda: forbidding.job(again)["JobState"] == "RUNNING", f"its start\n{first.text()}", 60)
        after = forbidding.job(again)
        assert {key: after[key] for key in ASKED} == {key: before[key] for key in ASKED}
        assert (before["TimeLimit"], before["Features"], before["ExcNodeList"]) == ("00:08:00", "ib", "n3")
        assert (before["Licenses"], before["Nice"], before["Comment"]) == ("solver:2", "20", "project-X")
    finally:
        forbidding.command("scancel", "--user=root" if os.geteuid() == 0 else "--me", check=False)


# ---- two jobs of one run


def test_of_two_jobs_of_one_run_the_second_steps_back_or_waits_behind_the_first(cluster: Cluster, tmp_path: Path):
    """A fallback beside its job ends well; a job that Slurm starts again stays in the queue until the other is over."""
    first = Training(cluster, tmp_path, STEADY)
    cluster.wait((first.run / "attempts/0001/progress").exists, f"a start\n{first.text()}", 60)
    script, log = tmp_path / "job.sh", tmp_path / "other.log"
    told = f"--export=ALL,HPCRESUME_BEHIND=fallback:{first.id}"
    fallback = cluster.submit(script, f"--output={log}", told)
    again = tmp_path / "again.sh"
    put_back = '[ -n "$SLURM_RESTART_COUNT" ] || { scontrol requeue $SLURM_JOB_ID; sleep 60; }\n'
    again.write_text(script.read_text().replace("exec ", f"{put_back}exec "))
    own = cluster.submit(again, f"--output={tmp_path / 'own.log'}")
    try:
        cluster.wait(lambda: cluster.job(fallback)["JobState"] == "COMPLETED", "the end of the fallback", 60)
        assert f"job {first.id} is at work on {first.run} (attempt 1): nothing to start" in log.read_text()
        cluster.wait(lambda: cluster.job(own)["Dependency"].startswith(f"afterany:{first.id}"), "a place behind it", 60)
        cluster.wait(lambda: cluster.job(own)["JobState"] == "PENDING", "its wait", 60)
        assert cluster.job(first.id)["JobState"] == "RUNNING"
        assert [path.name for path in (first.run / "attempts").iterdir()] == ["0001"]
        assert not (first.run / "launch/barren-starts.jsonl").exists()
        cluster.command("scancel", first.id)
        cluster.wait((first.run / "attempts/0002/progress").exists, "the other's turn", 60)
    finally:
        cluster.command("scancel", first.id, fallback, own, check=False)


# ---- hr.Resumable without a supervisor


GRACE = 75
"""Seconds: longer than the minute for which a task waits for the end that follows a requeue."""


@pytest.fixture
def long_grace(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Any]]:
    """Makes an executor for a partition with a long grace."""
    submitit = needed("submitit")
    for name in [n for n in os.environ if n.startswith(("SLURM_", "SBATCH_", "SUBMITIT_", "OMPI_MCA"))]:
        monkeypatch.delenv(name)
    for name, value in {**child_environment(), **AS_ROOT, **cluster.mini.variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{cluster.env['PATH']}")
    monkeypatch.chdir(Path(__file__).parents[2])
    cluster.command("scontrol", "create", "PartitionName=long", "Nodes=ALL", "PriorityTier=1", "PreemptMode=REQUEUE",
                    f"GraceTime={GRACE}", "MaxTime=INFINITE", "State=UP")  # fmt: skip

    def make(out: Path) -> Any:
        made = submitit.AutoExecutor(out / "jobs", cluster="slurm")
        made.update_parameters(
            timeout_min=10, slurm_partition="long", slurm_signal_delay_s=60, slurm_setup=[without_scontrol(out)]
        )  # fmt: skip
        return made

    yield make
    cluster.command("scancel", "--user=root" if os.geteuid() == 0 else "--me", check=False)
    cluster.wait(lambda: not cluster.command("squeue", "-h", "--partition=long").strip(), "an empty partition", 60)
    cluster.command("scontrol", "delete", "PartitionName=long")


@pytest.mark.full
@pytest.mark.slurm_versions
def test_a_resumable_without_scontrol_stays_through_a_long_grace_and_slurm_starts_it_again(
    cluster: Cluster, long_grace: Callable[[Path], Any], tmp_path: Path
):
    """It waited a minute and left in its grace, which is the end of a job before 24.05."""
    job = long_grace(tmp_path).submit(hr.Resumable(train), str(tmp_path / "run"), 120, out=str(tmp_path), seconds=0.05)
    steps = tmp_path / "rank-0.jsonl"
    cluster.wait(lambda: steps.exists() and len(steps.read_text().splitlines()) > 10, f"steps\n{job.stderr()}", 60)
    cluster.command("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    result = job.task(0).paths.result_pickle
    cluster.wait(result.exists, f"a result\n{job.stdout()}\n{job.stderr()}", GRACE + 120)
    (found,) = job.results()
    assert (found["attempt"], found["sum"]) == (2, expected(120))
    assert cluster.job(job.job_id)["Restarts"] == "1"
