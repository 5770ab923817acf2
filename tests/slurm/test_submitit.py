"""submitit on a real cluster, two nodes with two tasks each: our signals in charge, submitit's own ways beside it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcresume as hr
from hpcresume.launch.notes import read_notes
from tests.integrations import trainings
from tests.integrations.trainings import Checkpointed, expected, train
from tests.slurm.cluster import Cluster, running_cluster, skip_without_slurm
from tests.support.lacking import needed
from tests.support.launching import ledger
from tests.support.mpi import AS_ROOT, child_environment

submitit = needed("submitit")
pytestmark = pytest.mark.timeout(300)
STEPS, LONG, MANY = 60, 700, 400
MORE_RANKS_THAN_CORES = {"OMPI_MCA_mpi_yield_when_idle": "1"}
"""Steps: of a training with three preemptions, of one beside another, and of one that a test ends."""


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cluster], None]:
    """Have submitit and this process speak with a cluster."""

    def of(cluster: Cluster) -> None:
        for name in [n for n in os.environ if n.startswith(("SLURM_", "SBATCH_", "SUBMITIT_", "OMPI_MCA"))]:
            monkeypatch.delenv(name)
        for name, value in {
            **child_environment(),
            **AS_ROOT,
            **cluster.mini.variables,
            **MORE_RANKS_THAN_CORES,
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{cluster.env['PATH']}")
        monkeypatch.chdir(Path(__file__).parents[2])

    return of


@pytest.fixture
def here(cluster: Cluster, use: Callable[[Cluster], None]) -> Iterator[Cluster]:
    """The cluster that all tests share; no job of this test's stays in it."""
    use(cluster)
    yield cluster
    cluster.command("scancel", "--user=root" if os.geteuid() == 0 else "--me", check=False)


def executor(folder: Path, **more: Any) -> Any:
    """As a user would make it; ranks that speak MPI need `--mpi=pmix`."""
    made = submitit.AutoExecutor(folder, cluster="slurm", **more)
    made.update_parameters(nodes=2, tasks_per_node=2, timeout_min=5, slurm_srun_args=["--mpi=pmix"],
                           slurm_signal_delay_s=60)  # fmt: skip
    return made


def steps_of(out: Path, name: str = "rank-0.jsonl") -> int:
    path = out / name
    return len(path.read_text().splitlines()) if path.exists() else 0


def short_job(cluster: Cluster) -> None:
    """Of the partition that preempts, on both nodes."""
    cluster.command("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")


def preempt(cluster: Cluster, job: Any, out: Path, times: int) -> None:
    """So often, each time after some new steps of a start of its own."""
    for count in range(1, times + 1):
        before, again = steps_of(out), str(count)
        cluster.wait(lambda before=before: steps_of(out) > before + 2, f"steps\n{job.stderr()}", 60)
        short_job(cluster)
        cluster.wait(
            lambda again=again: cluster.job(job.job_id)["Restarts"] == again, f"restart {again}\n{job.stderr()}", 60
        )


def results(cluster: Cluster, job: Any, seconds: float = 180) -> list[Any]:
    """Of all tasks; submitit alone would wait for ever where there is no accounting."""
    files = [job.task(number).paths.result_pickle for number in range(job.num_tasks)]
    cluster.wait(lambda: all(file.exists() for file in files), f"results\n{job.stdout()}\n{job.stderr()}", seconds)
    found: list[Any] = job.results()
    return found


def assert_whole(found: list[dict[str, Any]], out: Path, steps: int, attempt: int) -> None:
    """Results of four tasks of the last attempt, each as if never interrupted, and no step done twice."""
    assert [(each["rank"], each["size"], each["attempt"]) for each in found] == [(n, 4, attempt) for n in range(4)]
    assert [each["sum"] for each in found] == [expected(steps, rank) for rank in range(4)]
    assert [steps_of(out, f"rank-{rank}.jsonl") for rank in range(4)] == [steps] * 4


def ended(run: Path) -> list[str]:
    """The cause that was recorded of each attempt."""
    causes = []
    for number in range(1, len(list((run / "attempts").iterdir())) + 1):
        causes += [line["cause"] for line in ledger(run, number) if line["event"] == "ended"][-1:]
    return causes


def test_more_preemptions_than_submitit_allows_timeouts_and_the_results_of_all_four_tasks(
    here: Cluster, tmp_path: Path
) -> None:
    """submitit itself charges its budget for every preemption of a job of ten minutes or less."""
    job = executor(tmp_path / "jobs", slurm_max_num_timeout=1).submit(
        hr.Resumable(train), str(tmp_path / "run"), STEPS, out=str(tmp_path), seconds=0.1
    )
    preempt(here, job, tmp_path, 3)
    assert_whole(results(here, job), tmp_path, STEPS, attempt=4)
    assert ended(tmp_path / "run")[:3] == ["preempted"] * 3
    assert here.job(job.job_id)["Restarts"] == "3"


def hpcresume(*words: str) -> Any:
    """A verb with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcresume", *words, "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.full
def test_what_hr_submit_submits_is_known_to_status_cancel_and_requeue(here: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = hr.submit(
        {
            "name": "two by two",
            "run": str(run),
            "function": train,
            "kwargs": {"steps": MANY, "out": str(tmp_path), "seconds": 0.05},
            "resources": {"nodes": 2, "ntasks_per_node": 2, "time": "10min"},
            "requeue": {"warning_lead": "60s"},
        },
        cluster="slurm",
    )
    assert [row["job_id"] for row in hpcresume("status", str(run))["runs"]] == [job.job_id]
    preempt(here, job, tmp_path, 2)
    here.wait(lambda: steps_of(tmp_path) > 60, f"more steps\n{job.stderr()}", 60)
    hpcresume("cancel", str(run), "--yes")
    here.wait(lambda: here.job(job.job_id)["JobState"] == "CANCELLED", "a cancelled job", 60)
    assert hpcresume("requeue", str(run))["job_id"] == job.job_id
    found = results(here, job)
    assert [each["sum"] for each in found] == [expected(MANY, rank) for rank in range(4)]
    assert ended(run)[:2] == ["preempted", "preempted"]
    assert hpcresume("status", str(run))["runs"][0]["state"] == "done"


@pytest.mark.full
def test_submitits_own_functions_and_checkpoints_work_beside_it(here: Cluster, tmp_path: Path) -> None:
    plain = submitit.AutoExecutor(tmp_path / "plain", cluster="slurm")
    plain.update_parameters(timeout_min=5, tasks_per_node=1, slurm_signal_delay_s=60)
    assert results(here, plain.submit(trainings.plain, 2, 3)) == [5]
    theirs = plain.submit(Checkpointed(), str(tmp_path), LONG)
    here.wait(lambda: steps_of(tmp_path, "checkpointed.jsonl") > 10, "steps of submitit's own", 60)
    ours = plain.submit(hr.Resumable(train), str(tmp_path / "run"), LONG, out=str(tmp_path), seconds=0.05)
    here.wait(lambda: steps_of(tmp_path) > 10, f"steps of ours\n{ours.stderr()}", 60)
    short_job(here)
    assert results(here, theirs) == [LONG]
    (found,) = results(here, ours)
    assert (found["attempt"], found["sum"]) == (2, expected(LONG))
    assert steps_of(tmp_path, "checkpointed.jsonl") == LONG
    assert [here.job(job.job_id)["Restarts"] for job in (theirs, ours)] == ["1", "1"]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five nodes: one can be lost and another excluded, and a job of two still has somewhere to go."""
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("submitit") / "c", nodes=5) as running:
        yield running


@pytest.mark.full
def test_a_node_that_was_lost_is_kept_off_by_a_resumable_without_our_supervisor(
    wide: Cluster, use: Callable[[Cluster], None], tmp_path: Path
) -> None:
    """The node of the batch script: of another one MPI would notice the loss first, and the job would fail by that."""
    use(wide)
    run = tmp_path / "run"
    job = executor(tmp_path / "jobs").submit(hr.Resumable(train, run=run), steps=MANY, out=str(tmp_path), seconds=0.1)
    wide.wait(lambda: steps_of(tmp_path) > 5, f"steps\n{job.stderr()}", 60)
    lost = wide.command("scontrol", "show", "hostnames", wide.job(job.job_id)["NodeList"]).split()[0]
    wide.kill_node(lost)
    try:
        wide.wait((run / "attempts/0002/start.json").exists, f"a second start\n{job.stderr()}", 90)
        assert [each.node for each in read_notes(run).suspects] == [lost], job.stderr()
        wide.command("scancel", "--signal=USR2", job.job_id)
        wide.wait(lambda: wide.job(job.job_id)["ExcNodeList"] == lost, f"an exclusion\n{job.stderr()}", 60)
        assert ended(run)[:2] == ["node-failure", "operator"]
    finally:
        wide.command("scancel", job.job_id, check=False)
        wide.start_node(lost)
        with contextlib.suppress(Exception):
            wide.command("scontrol", "update", f"NodeName={lost}", "State=RESUME", check=False)
