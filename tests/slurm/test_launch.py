"""`hpcresume launch` in a batch script on a real cluster: whatever ends the job, it comes back and ends the same."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import PROGRAM, STEPS, digest, losses

ROOT = Path(__file__).parents[2]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


class Job:
    """A submitted training."""

    def __init__(
        self, cluster: Cluster, out: Path, *options: str, pause: float = 0.05, mpi: str = "srun", before: str = "",
        launch: str = "", requeue: str = "--requeue", program: Path = PROGRAM,
    ) -> None:  # fmt: skip
        self.cluster, self.out, self.run = cluster, out, out / "run"
        script = out / "job.sh"
        python, train = sys.executable, [str(program), str(self.run), str(STEPS), str(out), str(pause)]
        script.write_text(
            "#!/bin/bash\n"
            f"#SBATCH --nodes=2 --ntasks-per-node=1 {requeue} --open-mode=append\n"
            f"{before}\ncd {ROOT}\n"
            f"exec {python} -m hpcresume launch --run {self.run} --mpi {mpi} {launch} -- {python} {' '.join(train)}\n"
        )
        self.log = out / "job.log"
        given = ("--signal=B:USR1@30", f"--output={self.log}", *options)
        self.id = cluster.submit(script, *given)

    def wait_for_step(self, step: int) -> None:
        """Wait until the training has passed `step`."""
        path = self.out / "steps.jsonl"
        self.cluster.wait(lambda: path.exists() and len(path.read_text().splitlines()) > step, f"step {step}", 90)

    def state(self) -> dict[str, str]:
        return self.cluster.job(self.id)

    def wait_until_ended(self, timeout: float = 150) -> dict[str, str]:
        self.cluster.wait(lambda: self.state()["JobState"] in ENDED, f"end of job {self.id}\n{self.text()}", timeout)
        return self.state()

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def causes(self) -> list[str]:
        """The cause that was recorded for each attempt, in order."""
        found = []
        for attempt in sorted((self.run / "attempts").iterdir()):
            causes = []
            for name in ("supervisor.jsonl", "ledger.jsonl"):
                lines = (attempt / name).read_text().splitlines() if (attempt / name).exists() else []
                causes += [e["cause"] for e in map(json.loads, lines) if e["event"] == "ended" and "cause" in e]
            found.append(causes[-1] if causes else "")
        return found


def pids_of(marker: str) -> list[int]:
    """Processes whose command line has `marker` as an argument."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marker.encode() in arguments and b"launch" not in arguments and b"srun" not in arguments[0]:
                found.append(int(entry.name))
    return sorted(found)


def assert_same(job: Job, uninterrupted: dict[str, object], *, attempts: int, idle_starts: int = 0) -> None:
    """The run came back and its losses and final state are the uninterrupted run's, bit for bit.

    `idle_starts` of the job began after the run was finished, found DONE, and claimed no attempt.
    """
    ended = job.state()
    assert ended["JobState"] == "COMPLETED", job.text()
    assert (job.run / "DONE").exists()
    assert int(ended["Restarts"]) == attempts - 1 + idle_starts, job.text()
    assert job.text().count("nothing to start") == idle_starts
    assert losses(job.out) == uninterrupted["losses"], job.text()
    assert digest(job.out) == uninterrupted["digest"]


@pytest.mark.timeout(240)
@pytest.mark.slurm_versions
@pytest.mark.parametrize("mpi", ["srun", "mpiexec"])
def test_a_preempted_job_saves_comes_back_and_ends_the_same(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path, mpi: str
) -> None:
    job = Job(cluster, tmp_path, mpi=mpi)
    job.wait_for_step(20)
    high = tmp_path / "high.sh"
    high.write_text("#!/bin/sh\nsleep 2\n")
    cluster.submit(high, "--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path / 'high.log'}")
    # 24.11 does not forget a preemption when the job is requeued in its grace by ourselves: the end of the second life,
    # exit code 0, is taken for the end of a preempted one, and the job is started once more.
    new = cluster.mini.version >= "24"
    cluster.wait(lambda: job.text().count("nothing to start") == int(new), "last start", 90)
    job.wait_until_ended()
    assert_same(job, uninterrupted, attempts=2, idle_starts=int(new))
    assert job.causes() == ["preempted", "done"]


@pytest.mark.timeout(240)
def test_a_job_that_lost_a_rank_comes_back_and_ends_the_same(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(cluster, tmp_path)
    job.wait_for_step(20)
    victims = pids_of(str(job.run))
    assert len(victims) >= 2, "both ranks should be running"
    os.kill(victims[-1], signal.SIGKILL)
    job.wait_until_ended()
    assert_same(job, uninterrupted, attempts=2)
    assert job.causes() == ["crash", "done"]


@pytest.mark.timeout(240)
def test_a_job_at_its_time_limit_saves_in_time_and_comes_back(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    """Slurm looks at limits every 30 s, and the warning comes when the rest is at most the lead + 30 s."""
    job = Job(cluster, tmp_path, "--time=1", "--signal=B:USR1@20", pause=0.3)
    job.wait_until_ended(200)
    assert job.causes()[0] in {"walltime"}, job.text()
    assert job.causes()[-1] == "done", job.text()
    assert_same(job, uninterrupted, attempts=len(job.causes()))


@pytest.mark.timeout(240)
@pytest.mark.slurm_versions
def test_a_job_whose_node_lost_power_comes_back_and_ends_the_same(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(cluster, tmp_path)
    job.wait_for_step(20)
    cluster.kill_node("n2")
    began = time.monotonic()
    try:
        cluster.wait(lambda: job.state()["Restarts"] == "1" or job.state()["JobState"] != "RUNNING", "notice", 60)
    finally:
        cluster.start_node("n2")
        cluster.command("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)
    assert time.monotonic() - began < 60
    job.wait_until_ended()
    assert_same(job, uninterrupted, attempts=2)
    assert job.causes()[-1] == "done"


@pytest.mark.timeout(240)
def test_a_finished_run_does_not_train_again(cluster: Cluster, tmp_path: Path) -> None:
    first = Job(cluster, tmp_path, pause=0.0)
    first.wait_until_ended()
    steps = (tmp_path / "steps.jsonl").read_text()
    again = Job(cluster, tmp_path, pause=0.0)
    assert again.wait_until_ended()["JobState"] == "COMPLETED"
    assert (tmp_path / "steps.jsonl").read_text() == steps
    assert len(again.causes()) == 1
