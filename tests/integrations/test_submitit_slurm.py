"""submitit's Slurm executor on a real cluster: preempted for real, requeued after the commit, results of all ranks."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.errors import RunBusyError
from tests.integrations import trainings
from tests.integrations.trainings import expected, train, train_sharing_only_the_run
from tests.slurm.cluster import running_cluster, skip_without_slurm
from tests.support.launching import ledger, wait_until
from tests.support.mpi import AS_ROOT, child_environment

submitit = pytest.importorskip("submitit")
pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("slurm") / "c") as running:
        yield running


@pytest.fixture(autouse=True)
def its_environment(cluster, monkeypatch):
    wanted = {**child_environment(), **AS_ROOT, "PATH": cluster.env["PATH"], "SLURM_CONF": cluster.env["SLURM_CONF"]}
    for name in [n for n in os.environ if n.startswith(("SLURM_", "SBATCH_", "SUBMITIT_", "OMPI_MCA"))]:
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{cluster.env['PATH']}")
    monkeypatch.chdir(Path(__file__).parents[2])


def steps_of(out: Path, rank: int = 0) -> int:
    path = out / f"rank-{rank}.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def preempt(cluster) -> None:
    """A short job of the partition that preempts, on every node."""
    cluster.command("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")


def results(job, cluster, seconds: float = 150):
    """Of all ranks; submitit alone would wait for ever where there is no accounting."""
    files = [job.task(n).paths.result_pickle for n in range(job.num_tasks)]
    try:
        wait_until(lambda: all(file.exists() for file in files), seconds)
    except AssertionError:
        raise AssertionError(f"{cluster.job(job.job_id)}\n{job.stdout()}\n{job.stderr()}") from None
    return job.results()


def description(tmp_path: Path, function=train, **more) -> dict:
    return {
        "name": "it's a test",
        "run": str(tmp_path / "run"),
        "function": function,
        "resources": {"nodes": 2, "ntasks_per_node": 1, "time": "10min"},
        "requeue": {"warning_lead": "60s"},
        **more,
    }


def test_submit_on_slurm_is_preempted_comes_back_and_returns_the_results_of_all_ranks(tmp_path, cluster):
    wanted = description(tmp_path, kwargs={"steps": 120, "out": str(tmp_path), "seconds": 0.05})
    job = hr.submit(wanted, cluster="slurm")
    wait_until(lambda: steps_of(tmp_path) > 10, 60)
    with pytest.raises(RunBusyError, match=f"this run has a job already: job {job.job_id} "):
        hr.submit(wanted, cluster="slurm")
    preempt(cluster)
    found = results(job, cluster)
    assert [(r["rank"], r["size"], r["attempt"]) for r in found] == [(0, 2, 2), (1, 2, 2)]
    assert [r["sum"] for r in found] == [expected(120, 0), expected(120, 1)]
    assert [steps_of(tmp_path, rank) for rank in range(2)] == [120, 120], "a step was lost or done twice"
    ended = [line for line in ledger(tmp_path / "run", 1) if line["event"] == "ended"]
    assert ended[-1]["cause"] == "preempted"
    assert cluster.job(job.job_id)["Restarts"] == "1"
    assert stat.S_IMODE((tmp_path / "run/submitit").stat().st_mode) == 0o700
    assert "hpcresume" in (job.task(1).stderr() or "") + (job.task(0).stderr() or "")


def test_an_autoexecutor_with_resumable_comes_back_and_no_preemption_counts_as_a_timeout(tmp_path, cluster):
    """submitit takes every preemption of a job of ten minutes or less for a timeout; here it may have none at all."""
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm", slurm_max_num_timeout=0)
    executor.update_parameters(nodes=2, tasks_per_node=1, timeout_min=5, slurm_srun_args=["--mpi=pmix"],
                               slurm_signal_delay_s=60)  # fmt: skip
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), 120, out=str(tmp_path), seconds=0.05)
    wait_until(lambda: steps_of(tmp_path) > 10, 60)
    preempt(cluster)
    found = results(job, cluster)
    assert [(r["rank"], r["attempt"]) for r in found] == [(0, 2), (1, 2)]
    assert [r["sum"] for r in found] == [expected(120, 0), expected(120, 1)]
    assert cluster.job(job.job_id)["Restarts"] == "1"
    lines = ledger(tmp_path / "run", 1)
    assert [line["result"] for line in lines if line["event"] == "requeue"] == ["accepted"]
    assert next(line for line in lines if line["event"] == "ended")["cause"] == "preempted"


def test_what_may_not_be_requeued_is_reported_as_uncompleted_by_all_ranks(tmp_path, cluster):
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(nodes=2, tasks_per_node=1, timeout_min=5, slurm_srun_args=["--mpi=pmix"],
                               slurm_additional_parameters={"no-requeue": True})  # fmt: skip
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), 200, out=str(tmp_path), seconds=0.05)
    wait_until(lambda: steps_of(tmp_path) > 5, 60)
    cluster.command("scancel", "--signal=USR2", job.job_id)
    with pytest.raises(submitit.core.utils.UncompletedJobError, match="not requeued because: requeue refused"):
        results(job, cluster)
    assert "task 0 says why" in str(job.task(1).exception())


@pytest.mark.parametrize("supervised", [True, False])
def test_an_exception_is_reported_and_the_job_does_not_come_back(tmp_path, cluster, supervised):
    if supervised:
        job = hr.submit(description(tmp_path, train_sharing_only_the_run, kwargs={"crash_at": 3}), cluster="slurm")
    else:
        executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
        executor.update_parameters(nodes=2, tasks_per_node=1, timeout_min=5, slurm_srun_args=["--mpi=pmix"])
        job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), crash_at=3)
    wait_until(lambda: job.task(1).paths.result_pickle.exists(), 60)
    assert "ZeroDivisionError: at step 3" in str(job.task(1).exception())
    wait_until(lambda: cluster.job(job.job_id)["JobState"] not in ("RUNNING", "COMPLETING"), 60)
    if supervised:
        decided = [line["decision"] for line in ledger(tmp_path / "run", 1) if line["event"] == "decision"]
        assert decided == ["hold"]
        job.cancel()  # it may be kept in the queue, held
    else:
        assert (cluster.job(job.job_id)["JobState"], cluster.job(job.job_id)["Restarts"]) == ("FAILED", "0")
    assert len(list((tmp_path / "run/attempts").iterdir())) == 1


def train_numbered(steps: int, run: str) -> dict[str, object]:
    return train(run, steps)


def test_an_array_gives_each_task_its_own_run(tmp_path, cluster):
    spec = description(tmp_path, train_numbered, resources={"nodes": 1, "ntasks_per_node": 1, "time": "5min"})
    jobs = hr.submit(spec, [4, 6], cluster="slurm")
    found = [results(job, cluster)[0] for job in jobs]
    assert [r["run"] for r in found] == [f"{tmp_path}/run-0", f"{tmp_path}/run-1"]
    assert [r["sum"] for r in found] == [expected(4), expected(6)]
    plain = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    plain.update_parameters(timeout_min=5)
    jobs = plain.map_array(hr.Resumable(train_numbered, run=tmp_path / "more"), [3, 5])
    assert [results(job, cluster)[0]["run"] for job in jobs] == [f"{tmp_path}/more-0", f"{tmp_path}/more-1"]


def test_submitits_own_function_beside_it_is_untouched(tmp_path, cluster):
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(timeout_min=5)
    assert results(executor.submit(trainings.plain, 2, 3), cluster) == [5]


def test_a_cancelled_job_is_not_brought_back(tmp_path, cluster):
    """Slurm takes a requeue of a job that it is ending (seen: COMPLETING), so it must not be asked for."""
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(nodes=2, tasks_per_node=1, timeout_min=5, slurm_srun_args=["--mpi=pmix"])
    job = executor.submit(hr.Resumable(train), str(tmp_path / "run"), 2000, out=str(tmp_path), seconds=0.05)
    wait_until(lambda: steps_of(tmp_path) > 5, 60)
    job.cancel()
    wait_until(lambda: cluster.job(job.job_id)["JobState"] not in ("RUNNING", "COMPLETING"), 60)
    assert (cluster.job(job.job_id)["JobState"], cluster.job(job.job_id)["Restarts"]) == ("CANCELLED", "0")
    decided = [line for line in ledger(tmp_path / "run", 1) if line["event"] in ("cause", "requeue")]
    assert [line.get("cause") for line in decided] == ["operator"]


def test_a_warning_before_the_time_limit_is_no_preemption_and_comes_back_too(tmp_path, cluster):
    job = hr.submit(description(tmp_path, kwargs={"steps": 60, "out": str(tmp_path), "seconds": 0.05}), cluster="slurm")
    wait_until(lambda: steps_of(tmp_path) > 5, 60)
    cluster.command("scancel", "--batch", f"--signal={signal.SIGUSR1.name}", job.job_id)
    time.sleep(0.1)
    assert results(job, cluster)[0]["attempt"] == 2
