"""Requeued for ever: preemption upon preemption on a real cluster, and every way in which Slurm itself gets between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, running_cluster, skip_without_slurm
from tests.slurm.conftest import STEPS, digest, losses
from tests.slurm.test_launch import ENDED, Job
from tests.support.sampling import sampled

pytestmark = pytest.mark.timeout(300)
PREEMPTIONS = 7
"""One more than the six that Slurm 24.11's MaxBatchRequeue=5 lets pass before it holds a job that left by itself."""


def preempt(cluster: Cluster, out: Path, nodes: int = 2) -> str:
    """A short job of the partition that preempts wants whole nodes; its number."""
    words = ("--partition=high", f"--nodes={nodes}", "--exclusive", f"--output={out / 'high.log'}", "--wrap=sleep 1")
    return cluster.command("sbatch", "--parsable", *words).strip()


class Witness:
    """Looks at a job again and again and remembers every state and reason that Slurm showed of it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.seen: list[tuple[str, str]] = []

    def restarts(self) -> int:
        """How often it was started again; what it looks like now is noted on the way."""
        shown = self.job.state()
        now = shown["JobState"], shown["Reason"]
        if now not in self.seen[-1:]:
            self.seen.append(now)
        return int(shown["Restarts"])

    def held(self) -> list[tuple[str, str]]:
        """What showed it as held: JobHeldUser, JobHeldAdmin, job_requeued_in_held_state and their like."""
        return [(state, reason) for state, reason in self.seen if "held" in reason.lower()]


def preempt_again_and_again(cluster: Cluster, job: Job, times: int) -> Witness:
    """So often, each time after two new steps; returns once the job is over."""
    witness, steps = Witness(job), job.out / "steps.jsonl"
    for count in range(1, times + 1):
        before = len(steps.read_text().splitlines()) if steps.exists() else 0
        job.wait_for_step(before + 2)
        preempt(cluster, job.out)
        cluster.wait(lambda count=count: witness.restarts() == count, f"restart {count}\n{job.text()}", 60)
    cluster.wait(lambda: witness.restarts() >= times and witness.seen[-1][0] in ENDED, f"an end\n{job.text()}", 150)
    return witness


def assert_the_same(job: Job, uninterrupted: dict[str, object]) -> None:
    """Done, no step lost, none computed otherwise, and the final bits are the uninterrupted run's."""
    assert (job.run / "DONE").exists(), job.text()
    assert losses(job.out) == uninterrupted["losses"], job.text()
    assert len((job.out / "steps.jsonl").read_text().splitlines()) == STEPS, "a step was done twice"
    assert digest(job.out) == uninterrupted["digest"]


def without_scontrol(out: Path) -> str:
    """A line of shell after which there is srun, and no other command of Slurm."""
    programs = out / "programs"
    programs.mkdir()
    for name in ("srun", "env", "sh", "bash"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return f"export PATH={programs}"


@pytest.fixture
def brief(cluster: Cluster) -> Iterator[str]:
    """A partition whose grace is short."""
    cluster.command("scontrol", "create", "PartitionName=brief", "Nodes=ALL", "PriorityTier=1", "PreemptMode=REQUEUE",
                    "GraceTime=5", "MaxTime=INFINITE", "State=UP")  # fmt: skip
    yield "brief"
    cluster.command("scontrol", "delete", "PartitionName=brief")


@pytest.mark.slurm_versions
def test_preempted_seven_times_in_a_row_it_is_never_held_and_ends_the_same(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(cluster, tmp_path, pause=0.15)
    witness = preempt_again_and_again(cluster, job, PREEMPTIONS)
    assert witness.held() == []
    assert job.causes() == ["preempted"] * PREEMPTIONS + ["done"]
    assert_the_same(job, uninterrupted)


def preempted_without_scontrol(cluster: Cluster, partition: str, out: Path, times: int) -> Job:
    """The supervisor does not leave in its grace: on 22.05 that would be the end, on 24.11 five times too many."""
    pause = 0.15 if times > 1 else 0.08
    job = Job(cluster, out, f"--partition={partition}", pause=pause, before=without_scontrol(out))
    witness = preempt_again_and_again(cluster, job, times)
    assert "waiting for that" in job.text()
    assert witness.held() == []
    assert job.causes() == ["preempted"] * times + ["done"]
    return job


def test_where_scontrol_is_missing_slurm_itself_brings_it_back(
    cluster: Cluster, brief: str, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    assert_the_same(preempted_without_scontrol(cluster, brief, tmp_path, 1), uninterrupted)


@pytest.mark.full
@pytest.mark.timeout(500)
@pytest.mark.slurm_versions
def test_where_scontrol_is_missing_slurm_itself_brings_it_back_seven_times(
    cluster: Cluster, brief: str, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    assert_the_same(preempted_without_scontrol(cluster, brief, tmp_path, PREEMPTIONS), uninterrupted)


@pytest.mark.full
def test_a_preemption_of_which_only_the_cont_comes_is_noticed(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    """Slurm sends CONT before the warning. Here CONT is all that it sends, as if the warning had got lost."""
    job = Job(cluster, tmp_path, "--signal=B:CONT@30", pause=0.1)
    job.wait_for_step(10)
    preempt(cluster, tmp_path)
    job.wait_until_ended()
    assert "its warning has not come here" in job.text()
    assert job.causes() == ["preempted", "done"]
    assert_the_same(job, uninterrupted)


@pytest.mark.full
@pytest.mark.slurm_versions
def test_a_run_that_finishes_in_its_grace_is_done_and_starts_no_more(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    """24.11 starts a job again that left within its grace, whatever its exit code was: DONE comes first then."""
    job = Job(cluster, tmp_path, "--signal=B:USR1@30", pause=0.05)
    job.wait_for_step(STEPS - 8)
    preempt(cluster, tmp_path)
    witness = Witness(job)
    cluster.wait(lambda: witness.restarts() >= 0 and witness.seen[-1][0] == "COMPLETED", f"an end\n{job.text()}", 120)
    assert witness.held() == []
    assert_the_same(job, uninterrupted)


def test_a_user_who_said_no_requeue_is_obeyed(cluster: Cluster, tmp_path: Path) -> None:
    name = f"--job-name={tmp_path.name}"
    job = Job(cluster, tmp_path, name, pause=0.1, requeue="--no-requeue")
    job.wait_for_step(10)
    preempt(cluster, tmp_path)
    ended = job.wait_until_ended()
    assert ended["Restarts"] == "0"
    assert "the job was submitted with --no-requeue, so it is not submitted again" in job.text()
    assert job.causes() == ["preempted"]
    assert cluster.command("squeue", "-h", "-t", "all", "-o", "%i", name.replace("job-name", "name")).split() == [
        job.id
    ]


@pytest.fixture(scope="module")
def forbidding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A site that requeues nothing unless asked (JobRequeue=0)."""
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("forbidding") / "c", extra={"JobRequeue": "0"}) as running:
        yield running


@pytest.mark.parametrize("times", sampled([1, 3], lambda times: times == 1))
def test_where_the_site_forbids_requeues_other_jobs_go_on_in_the_same_folder(
    forbidding: Cluster, uninterrupted: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """One job more than preemptions, one log; each begins where the first one did, not where that was submitted."""
    elsewhere = tmp_path / "of ann"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    pause = 0.15 if times > 1 else 0.08
    first = Job(forbidding, tmp_path, f"--chdir={elsewhere}", pause=pause, requeue="", before='echo "begins in $PWD"')
    ids = [first.id]
    for count in range(1, times + 1):
        first.wait_for_step(len((tmp_path / "steps.jsonl").read_text().splitlines()) + 3 if count > 1 else 3)
        preempt(forbidding, tmp_path)
        forbidding.wait(lambda count=count: first.text().count("goes on when this one is over") == count,
                        f"resubmission {count}\n{first.text()}", 60)  # fmt: skip
        ids.append(first.text().split(" goes on when this one is over")[count - 1].rpartition(" ")[2])

    def over() -> bool:
        return "the run is finished" in first.text() and not forbidding.command("squeue", "-h").strip()

    forbidding.wait(over, f"the end and an empty queue\n{first.text()}", 150)
    assert first.text().count(f"begins in {elsewhere}") == times + 1, first.text()
    assert len(set(ids)) == times + 1
    assert first.causes() == ["preempted"] * times + ["done"]
    assert_the_same(first, uninterrupted)


def test_a_requeued_job_whose_script_never_runs_is_gone_on_with_by_its_guard(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    """The folder of its log is away at that moment: Slurm fails it before a line runs, and nobody of ours is there."""
    logs = tmp_path / "logs"
    logs.mkdir()
    job = Job(cluster, tmp_path, f"--output={logs / 'job.log'}", pause=0.08, launch="--guard")
    job.log = logs / "job.log"
    job.wait_for_step(10)
    guard = job.text().partition("job ")[2].split()[0]
    preempt(cluster, tmp_path)
    cluster.wait(lambda: (job.state()["Restarts"], job.state()["JobState"]) == ("1", "PENDING"), "a requeue", 60)
    logs.rename(tmp_path / "away")
    cluster.command("scontrol", "hold", guard)
    lost = job.wait_until_ended(60)
    (tmp_path / "away").rename(logs)
    assert lost["JobState"] == "FAILED", lost
    assert not (job.run / "attempts/0002").exists(), "its script has run after all"
    cluster.command("scontrol", "release", guard)
    cluster.wait(lambda: (job.run / "DONE").exists(), f"the guard's work\n{job.text()}", 120)
    cluster.wait(lambda: not cluster.command("squeue", "-h", f"--jobs={guard}", check=False).strip(), "the end", 60)
    assert job.causes() == ["preempted", "done"]
    assert_the_same(job, uninterrupted)
