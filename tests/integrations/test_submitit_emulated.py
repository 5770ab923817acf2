"""submitit on an emulated cluster of two nodes: what needs several nodes and no real Slurm."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.emulate.settings import default_partitions
from tests.integrations import trainings
from tests.integrations.trainings import expected, train, train_sharing_only_the_run
from tests.support.launching import ledger, wait_until
from tests.support.mpi import child_environment
from tests.support.sampling import sampled

submitit = pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.mpi, pytest.mark.timeout(180)]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Its commands on the PATH, and what its jobs find.

    The grace after a preemption is longer than any test waits for a restart: what comes back sooner was requeued by
    us, and not by the scheduler at the end of the grace. So is KillWait, for a task that stays until it is killed.
    """
    for name in [n for n in os.environ if n.startswith(("SLURM_", "SBATCH_", "SUBMITIT_", "HPCRESUME_", "OMPI_MCA"))]:
        monkeypatch.delenv(name)
    for name, value in (child_environment() | {"OMPI_MCA_btl": "^ofi", "TMPDIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(Path(__file__).parents[2])
    with EmulatedCluster(nodes=2, cpus=2, kill_wait=30.0, partitions=default_partitions(grace=100.0)) as running:
        for name, value in running.environ.items():
            monkeypatch.setenv(name, value)
        yield running


def decided(run: Path) -> list[dict]:
    return [line for line in ledger(run, 1) if line["event"] == "decision"]


def test_an_exception_on_another_node_than_the_supervisors_holds_the_job(tmp_path, cluster):
    job = hr.submit(
        {
            "name": "crash",
            "run": str(tmp_path / "run"),
            "function": train_sharing_only_the_run,
            "kwargs": {"run": str(tmp_path / "run"), "crash_at": 3, "out": str(tmp_path)},
            "resources": {"nodes": 2, "ntasks_per_node": 1, "time": "10min"},
        },
        cluster="slurm",
    )
    lines = wait_until(lambda: decided(tmp_path / "run"), 90)
    assert lines[0]["decision"] == "hold", "the supervisor did not see that the exception was reported"
    assert "ZeroDivisionError is reported to submitit: at step 3" in lines[0]["reason"]
    assert json.loads((tmp_path / "run/attempts/0001/decision.00001.json").read_text())["cause_hint"] == "crash"
    assert "ZeroDivisionError: at step 3" in str(job.task(1).exception())


def steps_of(out: Path) -> int:
    path = out / "rank-0.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def executor_without_timeouts(folder: Path):
    """submitit takes every preemption of a job of ten minutes or less for a timeout, and here it may have none."""
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=0)
    executor.update_parameters(timeout_min=5, slurm_signal_delay_s=60)
    return executor


def test_one_preemption_is_requeued_through_slurm_at_once_and_is_no_timeout(tmp_path, cluster):
    """One timeout would be one too many for this job, and the cluster by itself would requeue it much later."""
    executor = executor_without_timeouts(tmp_path / "jobs")
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), 60, out=str(tmp_path), seconds=0.02)
    wait_until(lambda: steps_of(tmp_path) > 10, 60)
    cluster.preempt(job.job_id)
    wait_until(lambda: cluster.job(job.job_id).restarts == 1 or job.paths.result_pickle.exists(), 20)
    wait_until(lambda: job.paths.result_pickle.exists(), 60)
    found = job.result()
    assert (found["attempt"], found["sum"]) == (2, expected(60)), job.stderr()
    assert steps_of(tmp_path) == 60, "a step was lost or done twice"
    lines = ledger(tmp_path / "run", 1)
    assert [line["cause"] for line in lines if line["event"] == "ended"] == ["preempted"]
    answers = [(line["result"], line["detail"]) for line in lines if line["event"] == "requeue"]
    assert [result for result, _ in answers] == ["accepted"]
    assert "by itself" not in answers[0][1]
    wait_until(lambda: cluster.job(job.job_id).over, 30)
    assert (cluster.job(job.job_id).state, cluster.job(job.job_id).restarts) == ("COMPLETED", 1)


def warned_of_the_time_limit_twice(tmp_path: Path, how: str):
    """A job that may time out once. Its limit is a minute, so that every warning comes shortly before it."""
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm", slurm_max_num_timeout=1)
    by_slurm = how == "the signal of Slurm's own clock"
    executor.update_parameters(timeout_min=1, slurm_signal_delay_s=45 if by_slurm else 5)
    steps, warn_at = (2000, ()) if by_slurm else (60, (10, 25))
    return executor.submit(
        hr.Resumable(train), str(tmp_path / "run"), steps, out=str(tmp_path), seconds=0.02, warn_at=warn_at
    )


@pytest.mark.parametrize(
    "how", sampled(["the same signal at once", "the signal of Slurm's own clock"], lambda how: "at once" in how)
)
def test_real_time_limits_are_charged_to_submitits_budget(tmp_path, cluster, how):
    job = warned_of_the_time_limit_twice(tmp_path, how)
    wait_until(lambda: job.paths.result_pickle.exists(), 100)
    with pytest.raises(submitit.core.utils.UncompletedJobError, match="timed-out too many times"):
        job.result()
    ended = [line for n in (1, 2) for line in ledger(tmp_path / "run", n) if line["event"] == "ended"]
    assert [line["cause"] for line in ended] == ["walltime", "walltime"], job.stderr()
    decisions = [line for n in (1, 2) for line in ledger(tmp_path / "run", n) if line["event"] == "decision"]
    assert [line["decision"] for line in decisions] == ["come-back", "hold"]
    assert decisions[1]["reason"] == "timed-out too many times"
    requeued = [[line["result"] for line in ledger(tmp_path / "run", n) if line["event"] == "requeue"] for n in (1, 2)]
    assert requeued == [["accepted"], []]
    wait_until(lambda: cluster.job(job.job_id).over, 60)
    assert cluster.job(job.job_id).restarts == 1


def train_numbered(steps: int, run: str) -> dict[str, object]:
    return train(run, steps)


def test_each_task_of_submitits_own_array_has_a_run_of_its_own(tmp_path, cluster):
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(timeout_min=5)
    jobs = executor.map_array(hr.Resumable(train_numbered, run=tmp_path / "sweep"), [4, 6])
    wait_until(lambda: all(job.paths.result_pickle.exists() for job in jobs), 60)
    found = [job.result() for job in jobs]
    assert [job.job_id.partition("_")[2] for job in jobs] == ["0", "1"], "not one array of Slurm's"
    assert [each["run"] for each in found] == [f"{tmp_path}/sweep-0", f"{tmp_path}/sweep-1"]
    assert [(each["attempt"], each["sum"]) for each in found] == [(1, expected(4)), (1, expected(6))]
    assert not (tmp_path / "sweep").exists()


@pytest.mark.full
def test_three_preemptions_cost_none_of_submitits_timeouts(tmp_path, cluster):
    executor = executor_without_timeouts(tmp_path / "jobs")
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), 200, out=str(tmp_path), seconds=0.02)
    for count in range(3):
        wait_until(lambda count=count: steps_of(tmp_path) > 20 + 40 * count, 60)
        cluster.preempt(job.job_id)
        wait_until(lambda count=count: cluster.job(job.job_id).restarts == count + 1, 60)
    wait_until(lambda: job.paths.result_pickle.exists(), 60)
    found = job.result()
    assert (found["attempt"], found["sum"]) == (4, expected(200)), job.stderr()
    assert steps_of(tmp_path) == 200
    causes = [ledger(tmp_path / "run", n)[-2]["cause"] for n in (1, 2, 3)]
    assert causes == ["preempted"] * 3


@pytest.mark.full
def test_they_would_cost_them_without_us(tmp_path, cluster):
    """That the test above can fail: submitit's own way ends at the first preemption."""
    job = executor_without_timeouts(tmp_path / "jobs").submit(trainings.Checkpointed(), str(tmp_path), 2000)
    wait_until(lambda: (tmp_path / "checkpointed.jsonl").exists(), 60)
    cluster.preempt(job.job_id)
    wait_until(lambda: job.paths.result_pickle.exists(), 60)
    with pytest.raises(submitit.core.utils.UncompletedJobError, match="timed-out too many times"):
        job.result()


def test_a_cancelled_job_says_so_and_does_not_come_back(tmp_path, cluster):
    job = executor_without_timeouts(tmp_path / "jobs").submit(
        hr.Resumable(train), str(tmp_path / "run"), 2000, out=str(tmp_path)
    )
    wait_until(lambda: steps_of(tmp_path) > 5, 60)
    job.cancel()
    wait_until(lambda: cluster.job(job.job_id).over, 30)
    assert (cluster.job(job.job_id).state, cluster.job(job.job_id).restarts) == ("CANCELLED", 0)
    with pytest.raises(submitit.core.utils.UncompletedJobError, match=r"CANCELLED|stopped by a person"):
        job.results()
    ends = [line for line in ledger(tmp_path / "run", 1) if line["event"] in ("cause", "requeue")]
    assert [line.get("cause") for line in ends] == ["operator"], "the requeue of a cancelled job must not be asked for"


def lost_before(run: Path, count: int) -> None:
    """As if so many attempts before the present one had been lost with their nodes, and had committed nothing."""
    number = count + 1
    (run / "attempts/0001").rename(run / f"attempts/{number:04d}")
    for each in range(1, number):
        attempt = run / "attempts" / f"{each:04d}"
        attempt.mkdir()
        ended = {"t": 1.0, "event": "ended", "cause": "node-failure", "committed": None}
        (attempt / "supervisor.jsonl").write_text(json.dumps(ended) + "\n")


@pytest.mark.full
def test_a_resumable_whose_attempts_are_lost_again_and_again_is_held_in_the_queue_until_somebody_releases_it(
    tmp_path, cluster
):
    """Nobody of ours outlives such an attempt: the next start holds the job, before it trains."""
    run = tmp_path / "run"
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(timeout_min=5)
    job = executor.submit(hr.Resumable(trainings.train, run=run), steps=60, out=str(tmp_path), seconds=0.05)
    wait_until(lambda: steps_of(tmp_path) > 2, 60)
    (rank,) = {json.loads(line)["pid"] for line in (tmp_path / "rank-0.jsonl").read_text().splitlines()}
    os.kill(rank, signal.SIGSTOP)  # it must not see its own attempt renamed
    lost_before(run, 5)
    cluster.kill_node(cluster.run("squeue", "-h", "-j", job.job_id, "-o", "%N").stdout.strip())
    wait_until(lambda: "held" in cluster.run("squeue", "-h", "-j", job.job_id, "-o", "%r").stdout, 60)
    assert not job.paths.result_pickle.exists(), job.exception()
    comment = cluster.run("squeue", "-h", "-j", job.job_id, "-o", "%k").stdout
    assert "5 attempts ended by node-failure without checkpoint progress" in comment
    cluster.run("scontrol", "release", job.job_id)
    wait_until(lambda: job.paths.result_pickle.exists(), 90)
    assert job.result()["sum"] == expected(60), job.stderr()
