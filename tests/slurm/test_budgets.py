"""Budgets on a real cluster: what an operator sees of a crash loop, and what becomes of a node that was lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.launch.notes import read_notes
from tests.slurm.cluster import Cluster, running_cluster, skip_without_slurm
from tests.slurm.test_launch import ROOT, Job, digest, losses

pytestmark = pytest.mark.timeout(240)
CRASHING, KILLING, STEADY = (Path(__file__).with_name(f"{name}.py") for name in ("crashing", "killing", "steady"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five nodes: one can be lost and another excluded, and a job of two still has somewhere to go."""
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("wide") / "c", nodes=5) as running:
        yield running


class Training:
    """A batch script with one rank and options for `hpcresume launch`."""

    def __init__(self, cluster: Cluster, out: Path, program: Path, *options: str, sbatch: tuple[str, ...] = ()) -> None:
        self.cluster, self.out, self.run, self.log = cluster, out, out / "run", out / "job.log"
        script = out / "job.sh"
        launch = f"{sys.executable} -m hpcresume launch --run {self.run} --mpi direct {' '.join(options)}"
        script.write_text(
            "#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 --requeue --open-mode=append --signal=B:USR1@30\n"
            f"cd {ROOT}\nexec {launch} -- {sys.executable} {program} {self.run} {out}\n"
        )
        self.id = cluster.submit(script, f"--output={self.log}", *sbatch)

    def squeue(self, fields: str, job: str | None = None) -> str:
        words = ("squeue", "--noheader", "--states=all", f"--Format={fields}", f"--jobs={job or self.id}")
        return self.cluster.command(*words, check=False).strip()

    def state(self, job: str | None = None) -> str:
        return self.squeue("State:20", job).strip()

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, state: str, timeout: float = 120) -> None:
        self.cluster.wait(lambda: self.state() == state, f"{state}: {self.state()}\n{self.text()}", timeout)


def test_a_crash_loop_ends_held_in_the_queue_where_squeue_says_why_and_a_release_goes_on(cluster, tmp_path):
    (tmp_path / "bug").touch()
    job = Training(cluster, tmp_path, CRASHING, "--pause off --max-crashes 2", sbatch=("--comment=project X",))
    cluster.wait(lambda: "held" in job.squeue("Reason:60"), f"a held job\n{job.text()}", 120)
    job.wait_for("PENDING")
    shown = job.squeue("Comment:200")
    assert shown.startswith("hpcresume: 2 attempts ended by crash without checkpoint progress (limit 2)"), job.text()
    assert f"scontrol release {job.id}" in shown
    assert shown.endswith("| project X")
    assert "held state" in cluster.command("squeue", "--noheader", f"--jobs={job.id}"), "without any option, too"
    (tmp_path / "bug").unlink()
    cluster.command("scontrol", "release", job.id)
    job.wait_for("COMPLETED")
    assert (job.run / "DONE").exists()
    assert job.squeue("Comment:200") == "project X"
    assert "fresh budgets" in job.text()


@pytest.mark.full
def test_who_wants_that_gets_a_job_that_ends(cluster, tmp_path):
    (tmp_path / "bug").touch()
    job = Training(cluster, tmp_path, CRASHING, "--pause off --max-crashes 1 --when-held end")
    job.wait_for("FAILED")
    assert cluster.job(job.id)["ExitCode"] == "77:0"
    assert job.squeue("Comment:200").startswith("hpcresume: held: 1 attempt ended by crash")


@pytest.mark.full
def test_the_next_attempt_after_a_crash_waits(cluster, tmp_path):
    (tmp_path / "bug").touch()
    job = Training(cluster, tmp_path, CRASHING, "--pause 10min")
    cluster.wait(lambda: cluster.job(job.id)["Reason"] == "BeginTime", f"a pause\n{job.text()}", 60)
    job.wait_for("PENDING")
    assert "s of pause" in job.text()
    begin = cluster.command("squeue", "--noheader", "--format=%S", f"--jobs={job.id}").strip()
    now = cluster.command("date", "+%Y-%m-%dT%H:%M:%S").strip()
    assert begin > now
    later = cluster.command("date", "--date=now + 4 minutes", "+%Y-%m-%dT%H:%M:%S").strip()
    assert begin > later, "at least half of ten minutes"
    cluster.command("scancel", job.id)


def killed(cluster: Cluster, job: Job | Training) -> str:
    """Power the second of the job's nodes off, and on again once the job was requeued; its name."""
    listed = cluster.job(job.id)["NodeList"]
    lost = cluster.command("scontrol", "show", "hostnames", listed).split()[1]
    cluster.kill_node(lost)
    try:
        cluster.wait(lambda: cluster.job(job.id)["Restarts"] == "1", f"a restart\n{job.text()}", 90)
        cluster.wait(lambda: cluster.job(job.id)["JobState"] == "PENDING", f"a requeue\n{job.text()}", 30)
        cluster.wait(lambda: "down" in cluster.command("sinfo", "-h", "-n", lost, "-o", "%T"), f"{lost} down", 60)
        return lost
    finally:
        cluster.start_node(lost)


def test_a_node_that_was_killed_is_excluded_from_the_next_attempt_beside_what_the_user_excludes(wide, tmp_path):
    """Ranks that wait for nobody: Slurm is the first to notice."""
    job = Training(wide, tmp_path, STEADY, "--ranks 1", sbatch=("--nodes=2", "--ntasks=2", "--exclude=n5"))
    wide.wait(lambda: (job.run / "attempts/0001/progress").exists(), f"a start\n{job.text()}", 60)
    lost = killed(wide, job)
    wide.command("scontrol", "update", f"NodeName={lost}", "State=RESUME", check=False)
    excluded = wide.command("scontrol", "show", "hostnames", wide.job(job.id)["ExcNodeList"]).split()
    assert sorted(excluded) == sorted([lost, "n5"]), job.text()
    job.wait_for("RUNNING")
    assert lost not in wide.command("scontrol", "show", "hostnames", wide.job(job.id)["NodeList"]).split()
    wide.command("scancel", job.id)


@pytest.mark.full
def test_a_node_whose_loss_mpi_noticed_first_is_suspect_from_the_next_attempt_on(wide, uninterrupted, tmp_path):
    job = Job(wide, tmp_path)
    job.wait_for_step(20)
    lost = killed(wide, job)
    try:
        job.wait_until_ended()
    finally:
        wide.command("scontrol", "update", f"NodeName={lost}", "State=RESUME", check=False)
    assert [each.node for each in read_notes(job.run).suspects] == [lost], job.text()
    assert losses(job.out) == uninterrupted["losses"], job.text()
    assert digest(job.out) == uninterrupted["digest"]


@pytest.mark.full
def test_a_fallback_asks_for_fewer_nodes_in_another_partition(wide: Cluster, tmp_path):
    out = tmp_path
    (out / "bug").touch()
    script = out / "job.sh"
    launch = (f"{sys.executable} -m hpcresume launch --run {out / 'run'} --pause 40s"
              " --fallback-partition high --fallback-nodes 1 --fallback-failures 1")  # fmt: skip
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=2 --requeue --open-mode=append\n"
        f"cd {ROOT}\necho began on $SLURM_JOB_NODELIST\n"
        f"exec {launch} -- {sys.executable} {CRASHING} {out / 'run'} {out}\n"
    )
    log = out / "job.log"
    log.touch()
    filler = out / "filler.sh"
    filler.write_text("#!/bin/sh\nsleep 100\n")
    full = ("--partition=high", "--exclusive", f"--output={log}.filler")
    others = [wide.submit(filler, *full, "--nodes=3", "--nodelist=n[3-5]")]
    first = wide.submit(script, f"--output={log}")
    try:
        wide.wait(lambda: wide.job(first)["Reason"] == "BeginTime", f"a pause\n{log.read_text()}", 60)
        assert wide.job(first)["Partition"] == "high", log.read_text()
        # Its own nodes are free now; one of them is taken before it can start again, so that fewer is what it gets.
        others.append(wide.submit(filler, *full, "--nodes=1", "--nodelist=n2"))
        (out / "bug").unlink()
        wide.wait(lambda: wide.job(first)["JobState"] in ("COMPLETED", "FAILED"), f"an end\n{log.read_text()}", 120)
        assert wide.job(first)["NumNodes"] == "1"
        assert wide.job(first)["JobState"] == "COMPLETED", log.read_text()
        assert (out / "run/DONE").exists()
    finally:
        wide.command("scancel", first, *others, check=False)


@pytest.mark.full
def test_a_guard_waits_behind_the_job_and_is_gone_when_it_is_done(cluster, tmp_path):
    job = Training(cluster, tmp_path, CRASHING, "--guard")
    job.wait_for("COMPLETED")
    lines = (job.run / "launch" / "siblings.jsonl").read_text()
    guard = lines.partition('"waiting": ["')[2].partition('"')[0]
    assert guard.isdecimal(), job.text()
    cluster.wait(lambda: job.state(guard) in ("CANCELLED", ""), f"the guard's end: {job.state(guard)}", 30)


def test_a_guard_goes_on_when_its_job_is_killed_with_its_supervisor(cluster, tmp_path):
    (tmp_path / "bug").touch()
    job = Training(cluster, tmp_path, CRASHING, "--guard --pause 10min", sbatch=("--no-requeue",))
    job.wait_for("FAILED")
    assert "--no-requeue, so it is not submitted again" in job.text()
    assert not (job.run / "DONE").exists()
    out = tmp_path / "second"
    out.mkdir()
    doomed = Training(cluster, out, KILLING, "--guard")
    doomed.wait_for("FAILED")
    cluster.wait(lambda: (doomed.run / "DONE").exists(), f"the guard's work\n{doomed.text()}", 90)
    cluster.wait(
        lambda: "the run is finished" in doomed.text(), f"the guard's words in the same log\n{doomed.text()}", 20
    )
