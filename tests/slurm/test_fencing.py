"""Split brain for real: a job is started again while the start before it lives on and writes; two jobs of one run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import hpcresume as hr
from hpcresume.ops.listing import list_generations
from hpcresume.ops.targets import resolve
from hpcresume.session.fence import FENCE_SECONDS
from tests.slurm.cluster import Cluster, running_cluster, skip_without_slurm
from tests.slurm.conftest import STEPS, digest, losses
from tests.slurm.test_launch import Job, pids_of

pytestmark = pytest.mark.timeout(300)
QUICK = '[ -z "$SLURM_RESTART_COUNT" ] || export TRAIN_PAUSE=0.1'
"""The first start has to last until Slurm misses its node; the second one need not."""
OFTEN, SELDOM = (f"{QUICK}\nexport TRAIN_EVERY='{steps} steps'" for steps in (10, 40))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes: two whose slurmd dies, and two for the next start."""
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("fencing") / "c", nodes=4) as running:
        yield running


def notes(job: Job, attempt: int) -> list[dict[str, float]]:
    """What an attempt noted of each of its steps."""
    lines = map(json.loads, (job.out / "steps.jsonl").read_text().splitlines())
    return [line for line in lines if line["attempt"] == attempt]


def claimed_at(job: Job, attempt: int) -> float:
    """When an attempt was claimed, seconds since the epoch."""
    return float(json.loads((job.run / f"attempts/{attempt:04d}/claim.json").read_text())["time"])


def split(cluster: Cluster, job: Job) -> tuple[list[str], list[int]]:
    """End the slurmds of the job's nodes, and nothing else; the nodes, and the ranks that live on.

    Returns once the job's next start, on other nodes, has claimed its attempt.
    """
    job.wait_for_step(12)
    nodes = cluster.command("scontrol", "show", "hostnames", job.state()["NodeList"]).split()
    ranks = pids_of(str(job.run))
    assert len(ranks) == 2
    for node in nodes:
        cluster.mini.kill_slurmd(node)
    second = job.run / "attempts/0002/claim.json"
    cluster.wait(second.exists, f"a second start\n{job.text()}", 90)
    assert [pid for pid in ranks if psutil.pid_exists(pid)] == ranks, "no split brain: the first start is gone"
    assert set(nodes).isdisjoint(cluster.command("scontrol", "show", "hostnames", job.state()["NodeList"]).split())
    return nodes, ranks


def mend(cluster: Cluster, nodes: list[str]) -> None:
    """The nodes come back; Slurm then ends what it does not expect there."""
    for node in nodes:
        cluster.start_node(node)


def test_a_start_that_lives_on_beside_the_next_one_leaves_and_asks_slurm_for_nothing(
    wide: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(wide, tmp_path, pause=0.35, before=SELDOM)
    nodes, ranks = split(wide, job)
    try:
        wide.wait(lambda: not any(map(psutil.pid_exists, ranks)), f"the old ranks' end\n{job.text()}", 60)
        late = notes(job, 1)[-1]["t"] - claimed_at(job, 2)
        print(f"the older attempt did its last step {late:.1f} s after the newer one's claim")
        assert late < FENCE_SECONDS + 10, "the look, a step, and a busy machine"
        job.wait_until_ended()
    finally:
        mend(wide, nodes)
    assert "has the job and the run to itself" in job.text(), "the older supervisor's last words"
    assert (job.state()["JobState"], job.state()["Restarts"]) == ("COMPLETED", "1"), job.text()
    assert job.causes() == ["node-failure", "done"]
    assert losses(job.out) == uninterrupted["losses"]
    assert digest(job.out) == uninterrupted["digest"]


def test_what_a_start_commits_that_never_sees_the_next_one_is_chosen_by_nobody_and_pruned_by_nobody(
    wide: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = Job(wide, tmp_path, pause=0.35, before=OFTEN, program=Path(__file__).with_name("blind.py"))
    nodes, _ = split(wide, job)
    try:
        wide.wait((job.run / "attempts/0002/start.json").exists, f"the second start's choice\n{job.text()}", 60)
        began = json.loads((job.run / "attempts/0002/start.json").read_text())["generation"]
        count = len(notes(job, 1))
        wide.wait(lambda: len(notes(job, 1)) >= min(count + 25, STEPS), f"orphans\n{job.text()}", 60)
        shown = {each.name: each.mark for each in list_generations(resolve(job.run))}
        orphans = [name for name, mark in shown.items() if mark == "orphan"]
        print(f"the second start began at {began}; orphans beside it: {orphans}")
        assert len(orphans) >= 2
        assert all(name.endswith("-a0001") and name > began for name in orphans)
        found, _state = hr.load(job.run)
        assert found.name not in orphans
        assert not {each.name for each in hr.Generations(job.run).lineage()} & set(orphans)
        left = {each.name for each in hr.Generations(job.run).list()}
        assert set(orphans) <= left, "the newer attempt prunes nothing that is not of its own lineage and newer"
    finally:
        mend(wide, nodes)
    wide.wait(lambda: not any(line["t"] > time.time() - 2 for line in notes(job, 1)), "the older start's end", 60)
    job.wait_until_ended()
    assert job.state()["Restarts"] == "1"
    assert losses(job.out) == uninterrupted["losses"]
    assert digest(job.out) == uninterrupted["digest"]
    final, _ = hr.load(job.run)
    assert final.step == STEPS
    assert final.name.endswith("-a0002")


@pytest.mark.full
def test_a_second_job_of_a_run_is_refused_while_the_first_one_lives(wide: Cluster, tmp_path: Path) -> None:
    """The user submits twice. The guard of the first, and the first itself, stay as they are."""
    first = Job(wide, tmp_path, pause=0.2, launch="--guard")
    first.wait_for_step(5)
    second = Job(wide, tmp_path, f"--output={tmp_path / 'second.log'}", pause=0.2)
    ended = second.wait_until_ended(60)
    said = (tmp_path / "second.log").read_text()
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "73:0"), said
    assert f"job {first.id} is still running attempt 1" in said
    assert ended["Restarts"] == "0"
    guard = first.text().partition("job ")[2].split()[0]
    assert wide.job(guard)["JobState"] == "PENDING", first.text()
    assert first.wait_until_ended()["JobState"] == "COMPLETED"
    assert len(list((first.run / "attempts").iterdir())) == 1
