"""Arrays on a real Slurm: what happens to one task happens to no other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.test_stages import Chain, preempt

pytestmark = pytest.mark.timeout(300)
PROGRAM = Path(__file__).with_name("task.py")
JOB = f"""\
name: sweep
command: [{sys.executable}, {PROGRAM}, "STEPS", "0.1"]
log: sweep-%A_%a.log
resources: {{partition: low, time: 10min, array: 0-1, nodes: 1, exclusive: true}}
requeue: {{warning_lead: 1min, pause: 'off', max_crashes: 1}}
"""


class Sweep(Chain):
    """An array of two tasks, a node each."""

    def __init__(self, cluster: Cluster, folder: Path, steps: int) -> None:
        super().__init__(cluster, folder, "runs/sweep")
        (folder / "job.yaml").write_text(JOB.replace("STEPS", str(steps)))
        self.steps = steps

    def logs(self) -> str:
        return "".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("sweep-*.log")))

    def task(self, number: int) -> dict[str, Any]:
        (row,) = self.json("status", f"runs/sweep-{number}")["runs"]
        found: dict[str, Any] = row
        return found

    def wait_for_steps(self, least: int) -> None:
        def both() -> bool:
            runs = [self.folder / f"runs/sweep-{number}/attempts/0001/progress" for number in (0, 1)]
            return all(path.exists() and int.from_bytes(path.read_bytes()[:8], "little") >= least for path in runs)

        self.wait(both, f"{least} steps of both tasks")

    def results(self) -> set[str]:
        return {(self.folder / f"runs/sweep-{number}.result").read_text() for number in (0, 1)}


def test_a_task_that_is_preempted_comes_back_alone_and_the_others_go_on(cluster, tmp_path):
    sweep = Sweep(cluster, tmp_path, 100)
    job = sweep.json("submit")["job_id"]
    sweep.wait_for_steps(5)
    preempt(cluster, tmp_path, cluster.job(f"{job}_1")["NodeList"])
    sweep.wait(lambda: cluster.job(f"{job}_1")["Restarts"] == "1", "a requeue of task 1")
    assert cluster.job(f"{job}_0")["Restarts"] == "0"
    sweep.wait_until_done()
    rows = sweep.rows()
    assert list(rows) == ["sweep-0", "sweep-1"]
    assert [(row["attempt"], row["job_id"], row["lost_steps"]) for row in rows.values()] == [
        (1, f"{job}_0", 0), (2, f"{job}_1", 0)
    ]  # fmt: skip
    assert len(sweep.results()) == 1, "the same training, disturbed and not"
    causes = [each["cause"] for each in sweep.json("why", "runs/sweep-1")["attempts"]]
    assert causes == ["preempted", "done"]


@pytest.mark.full
@pytest.mark.slurm_versions
def test_a_task_is_held_alone_and_released_alone(cluster, tmp_path):
    sweep = Sweep(cluster, tmp_path, 20)
    (tmp_path / "bug-sweep-1").touch()
    job = sweep.json("submit")["job_id"]
    sweep.wait(lambda: "held" in sweep.reason(f"{job}_1"), "a hold of task 1")
    sweep.wait(lambda: sweep.task(0)["state"] == "done", "the end of task 0")
    sweep.wait(lambda: sweep.reason(f"{job}_1").startswith("PENDING"), "it waits")
    assert sweep.reason(f"{job}_0") == "COMPLETED None"
    held = sweep.task(1)
    assert (held["state"], held["job_id"]) == ("held", f"{job}_1")
    (tmp_path / "bug-sweep-1").unlink()
    told = sweep.json("requeue", "runs/sweep-1")
    assert (told["kind"], told["job_id"]) == ("release", f"{job}_1")
    sweep.wait_until_done()
    assert len(sweep.results()) == 1


@pytest.mark.full
@pytest.mark.slurm_versions
def test_a_task_is_cancelled_alone_and_started_again_alone(cluster, tmp_path):
    sweep = Sweep(cluster, tmp_path, 400)
    job = sweep.json("submit")["job_id"]
    sweep.wait_for_steps(5)
    sweep.verb("cancel", "runs/sweep-1", "--save", "--yes")
    assert sweep.reason(f"{job}_1").startswith("CANCELLED")
    assert sweep.task(0)["state"] == "running"
    sweep.verb("requeue", "runs/sweep-1")
    sweep.wait_until_done()
    assert [sweep.task(number)["attempt"] for number in (0, 1)] == [1, 2]
    assert len(sweep.results()) == 1
