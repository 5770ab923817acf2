"""doctor, its probe and drill on a real cluster; each with something broken on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.testing.minislurm import MiniSlurm
from tests.slurm.cluster import Cluster, skip_without_slurm
from tests.support.launching import hpcresume

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
TRAINING = """\
import sys, time
import numpy as np
import hpcresume as hr

w = np.zeros(4)
with hr.session(sys.argv[1], every=f"{sys.argv[2]} steps", reaction=0.0) as s:
    s.track(w=w)
    for step in s.steps(1_000_000):
        w += np.random.standard_normal(4)
        s.log(loss=float(w.sum()))
        time.sleep(0.05)
"""
IN_JOB = """\
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --time=10 --no-requeue
cd {root}
{python} -m hpcresume doctor {folder} --write=1MiB --json > {folder}/fine.json
echo $? > {folder}/fine.code
export SLURM_MPI_TYPE=none
{python} -m hpcresume doctor /dev/shm --write=1MiB --json > {folder}/broken.json
echo $? > {folder}/broken.code
"""
JOB = """\
#!/bin/bash
#SBATCH --nodes=1 --ntasks=1 --requeue --open-mode=append --time=60 --signal=B:USR1@{lead}
cd {root}
trap '' USR1
exec {python} -m hpcresume launch --mpi direct --pause off --run {run} -- {python} {folder}/train.py {run} {every}
"""


def run(cluster: Cluster, *words: str, code: int) -> str:
    done = subprocess.run(hpcresume(*words), env={**cluster.env, "OMPI_MCA_btl": "^ofi"}, cwd=ROOT, timeout=280,
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout


def by_check(text: str) -> dict[str, dict]:
    return {each["check"]: each for each in json.loads(text)["findings"]}


class Trained:
    """A training in a job of its own on a cluster."""

    def __init__(self, cluster: Cluster, folder: Path, *options: str, lead: int = 30, every: int = 20) -> None:
        self.cluster, self.path = cluster, folder / "run"
        (folder / "train.py").write_text(TRAINING)
        script = folder / "job.sh"
        values = {"root": ROOT, "python": sys.executable, "run": self.path, "folder": folder}
        script.write_text(JOB.format(**values, lead=lead, every=every))
        self.job = cluster.submit(script, f"--output={folder}/log", *options)
        cluster.wait(lambda: self.step > 25, "steps", 120)

    @property
    def step(self) -> int:
        files = sorted(self.path.glob("attempts/*/progress"))
        return int.from_bytes(files[-1].read_bytes()[:8], "little") if files else 0


@contextlib.contextmanager
def training(cluster: Cluster, folder: Path, *options: str, lead: int = 30, every: int = 20) -> Iterator[Trained]:
    """Cancelled at the end of the block."""
    made = Trained(cluster, folder, *options, lead=lead, every=every)
    try:
        yield made
    finally:
        end(cluster, made.job)


def end(cluster: Cluster, job: str) -> None:
    cluster.command("scancel", job)
    cluster.wait(lambda: cluster.job(job)["JobState"] not in ("RUNNING", "PENDING", "COMPLETING"), "its end", 60)


def test_in_a_job_of_two_nodes_all_is_well_and_singletons_and_memory_are_named(cluster, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(IN_JOB.format(root=ROOT, python=sys.executable, folder=tmp_path))
    job = cluster.submit(script, f"--output={tmp_path}/log")
    try:
        cluster.wait(lambda: cluster.job(job)["JobState"] not in ("RUNNING", "PENDING", "COMPLETING"), "doctor", 240)
    finally:
        end(cluster, job)
    fine = by_check((tmp_path / "fine.json").read_text())
    assert (tmp_path / "fine.code").read_text() == "0\n", fine
    assert fine["ranks by srun"]["what"] == "srun --mpi=pmix starts 2 ranks on 2 nodes, and each sees all 2"
    assert fine["ranks by mpiexec"]["verdict"] == "ok"
    assert fine["clocks"]["what"].startswith("the clocks of 2 nodes are 0.0")
    assert fine["alike on all nodes"]["what"].startswith("on all 2 nodes: Python 3.")
    assert "(2 nodes)" in fine["seen by others"]["what"]
    assert fine["clock of the controller"]["verdict"] == "ok"
    assert fine["warning of a preemption"]["verdict"] == fine["filesystem"]["verdict"] == "ok"

    broken = by_check((tmp_path / "broken.json").read_text())
    assert (tmp_path / "broken.code").read_text() == "1\n"
    assert "each believes to be alone: N trainings instead of one" in broken["ranks by srun"]["what"]
    assert "--mpi=pmix" in broken["ranks by srun"]["try"]
    assert "is memory: its checkpoints go with the node" in broken["filesystem"]["what"]
    assert broken["seen by others"]["verdict"] == "bad", "each node has a /dev/shm of its own"
    assert "is not seen on n2" in broken["seen by others"]["what"]


def test_a_grace_shorter_than_a_save_and_a_job_that_is_not_requeued_are_bad(cluster, tmp_path):
    cluster.command("scontrol", "create", "PartitionName=hasty", "Nodes=ALL", "GraceTime=2", "PreemptMode=REQUEUE",
                    "PriorityTier=1", "State=UP")  # fmt: skip
    try:
        with training(cluster, tmp_path, "--partition=hasty", "--no-requeue", lead=5) as made:
            found = by_check(run(cluster, "doctor", str(made.path), "--write=0", "--json", code=1))
            refused = run(cluster, "drill", str(made.path), "--yes", "--json", code=69)
            step = made.step
            cluster.wait(lambda: made.step > step, "it trains on", 30)
    finally:
        cluster.command("scontrol", "delete", "PartitionName=hasty")
    assert found["grace of a preemption"]["verdict"] == "bad"
    assert "grace 2 s, a save takes" in found["grace of a preemption"]["what"]
    assert found["the job's requeue"]["verdict"] == "bad"
    assert found["lead of the time limit"]["verdict"] == "warn"
    assert "has Requeue=0: it would not come back" in json.loads(refused)["error"]["what"]


def test_requeue_off_and_no_user_signal_are_warned_of(tmp_path, tmp_path_factory):
    skip_without_slurm()
    with MiniSlurm(tmp_path_factory.mktemp("m") / "c", nodes=1, user_signal=False, extra={"JobRequeue": "0"}) as mini:
        found = by_check(run(Cluster(mini), "doctor", str(tmp_path), "--write=0", "--json", code=3))
    assert found["requeue"]["verdict"] == found["warning of a preemption"]["verdict"] == "warn"
    assert "#SBATCH --requeue" in found["requeue"]["try"]
    assert "send_user_signal" in found["warning of a preemption"]["try"]


def expect_map(probed: dict) -> None:
    reached = {(row["launcher"], row["event"]): list(row["reached"].values()) for row in probed["signals"]}
    assert reached["srun", "scancel -s USR1"] == ["none", "none", "all", "all", "all"]
    assert reached["srun", "scancel -b -s USR1"] == ["all", "none", "none", "none", "none"]
    assert reached["srun", "scancel --full -s USR1"] == ["all"] * 5
    assert reached["srun", "kill -USR1 of the launcher"] == ["none", "none", "all", "all", "all"]
    assert reached["mpiexec", "scancel -b -s USR1"] == ["all", "none", "none", "none", "none"]
    assert reached["mpiexec", "kill -USR1 of the launcher"][2:4] == ["all", "all"]
    assert probed["signal_line"] == "#SBATCH --requeue --open-mode=append --signal=B:USR1@120"


def test_the_probe_maps_who_hears_what_and_sees_the_nodes(cluster, tmp_path):
    found = json.loads(run(cluster, "doctor", str(tmp_path), "--probe", "--write=0", "--json", code=3))
    expect_map(found["probe"])
    checks = {each["check"]: each["verdict"] for each in found["findings"]}
    wanted = ("ranks by srun", "ranks by mpiexec", "seen by others", "clocks", "alike on all nodes", "warning")
    assert {name: checks[name] for name in wanted} == dict.fromkeys(wanted, "ok")
    assert list(tmp_path.iterdir()) == []
    (job,) = found["probe"]["job_ids"]
    assert cluster.job(job)["JobState"] == "COMPLETED"


@pytest.mark.full
@pytest.mark.slurm_versions
def test_the_full_probe_measures_the_warnings_before_a_time_limit(cluster, tmp_path):
    found = json.loads(run(cluster, "doctor", str(tmp_path), "--probe=full", "--write=0", "--json", code=3))
    expect_map(found["probe"])
    limits = {row["event"]: row for row in found["probe"]["signals"] if row["event"].startswith("time limit")}
    batch, ranks = limits["time limit of the batch shell"], limits["time limit of the ranks"]
    assert list(batch["reached"].values()) == ["all", "none", "none", "none", "none"]
    assert list(ranks["reached"].values()) == ["none", "none", "all", "all", "all"]
    for row in (batch, ranks):
        assert 55 <= row["seconds_early"] <= 121, "60 s were asked for, and up to 60 s earlier is allowed"


@pytest.mark.full
def test_the_probe_where_preemptions_do_not_send_the_jobs_own_signal(tmp_path, tmp_path_factory):
    skip_without_slurm()
    with MiniSlurm(tmp_path_factory.mktemp("m") / "c", nodes=2, user_signal=False) as mini:
        (tmp_path / "f").mkdir()
        found = json.loads(run(Cluster(mini), "doctor", str(tmp_path / "f"), "--probe", "--write=0", "--json", code=3))
    expect_map(found["probe"])
    checks = {each["check"]: each["verdict"] for each in found["findings"]}
    assert checks["warning of a preemption"] == "warn"


@pytest.fixture
def roomy(cluster: Cluster) -> Iterator[str]:
    """A partition whose grace is ample; a test may make it shorter."""
    cluster.command("scontrol", "create", "PartitionName=roomy", "Nodes=ALL", "GraceTime=120", "PreemptMode=REQUEUE",
                    "PriorityTier=1", "State=UP")  # fmt: skip
    yield "roomy"
    cluster.command("scontrol", "delete", "PartitionName=roomy")


def judged(drilled: dict) -> dict[str, dict]:
    return {row["against"]: row for row in drilled["judged"]}


def test_a_drill_on_a_running_training(cluster, roomy, tmp_path):
    with training(cluster, tmp_path, f"--partition={roomy}", every=400) as made:
        warned = json.loads(run(cluster, "drill", str(made.path), "--yes", "--json", code=0))
        grace = judged(warned)["grace"]
        assert (grace["given"], grace["used"], grace["verdict"]) == (120.0, warned["saved_after"], "ok")
        assert "the grace of partition roomy is 120 s: " in grace["what"]
        print(grace["what"])
        assert warned["order"] == f"scancel --batch --signal=USR1 {made.job}"
        assert (warned["verdict"], warned["lost"], warned["after"]) == ("nothing lost", 0, 2)
        assert warned["saved"] == warned["restored"]
        assert warned["warned_step"] <= warned["saved_step"]
        assert warned["first_step"] == warned["saved_step"] + 1
        print(f"drill: saved after {warned['saved_after']:.1f} s, ran again after {warned['again_after']:.1f} s")

        # The order comes some seconds later, on a busy machine more: the next save is 14 s away at the least.
        cluster.wait(lambda: made.step % 400 in range(10, 120), "steps since the last save", 30)
        lost = json.loads(run(cluster, "drill", str(made.path), "--node", "--yes", "--json", code=1))
        assert (lost["cause"], lost["after"], lost["different_steps"]) == ("crash", 3, [])
        assert 0 < lost["lost"] <= 400
        assert lost["repeated_steps_compared"] > 0
        print(f"drill --node: {lost['lost']} steps lost, {lost['repeated_steps_compared']} compared, none different")


@pytest.mark.full
@pytest.mark.slurm_versions
def test_a_drill_that_loses_nothing_warns_of_a_grace_that_is_too_short(cluster, roomy, tmp_path):
    cluster.command("scontrol", "update", f"PartitionName={roomy}", "GraceTime=1")
    with training(cluster, tmp_path, f"--partition={roomy}") as made:
        found = json.loads(run(cluster, "drill", str(made.path), "--yes", "--json", code=3))
    assert (found["verdict"], found["lost"]) == ("too tight", 0)
    grace = judged(found)["grace"]
    assert (grace["given"], grace["verdict"]) in ((1.0, "warn"), (1.0, "bad"))
    assert "or ask for GraceTime=" in grace["try"]
    print(grace["what"], grace["try"], sep="; ")


@pytest.mark.full
def test_where_preemption_goes_by_qos_a_drill_goes_by_the_grace_of_the_jobs_qos(tmp_path, tmp_path_factory):
    skip_without_slurm()
    place = tmp_path_factory.mktemp("q") / "c"
    with MiniSlurm(place, nodes=1, accounting=True, extra={"PreemptType": "preempt/qos"}) as mini:
        cluster = Cluster(mini)
        cluster.command("sacctmgr", "-i", "add", "qos", "standby", "GraceTime=90", "PreemptMode=requeue")
        with training(cluster, tmp_path, "--qos=standby") as made:
            found = json.loads(run(cluster, "drill", str(made.path), "--yes", "--json", code=0))
            seen = by_check(run(cluster, "doctor", str(made.path), "--write=0", "--json", code=3))
    grace = judged(found)["grace"]
    assert (grace["given"], grace["verdict"]) == (90.0, "ok")
    assert "the grace of QOS standby is 90 s" in grace["what"]
    assert "grace 90 s" in seen["grace of a preemption"]["what"]


@pytest.mark.full
@pytest.mark.slurm_versions
def test_a_drill_by_requeue_comes_back(cluster, tmp_path):
    with training(cluster, tmp_path) as made:
        done = json.loads(run(cluster, "drill", str(made.path), "--requeue", "--yes", "--json", code=3))
        assert done["order"] == f"scontrol requeue {made.job}"
        left = judged(done)["KillWait"]
        assert (left["given"], left["verdict"]) == (5.0, "warn"), "10 s are advised at the least"
        assert "or ask for KillWait=" in left["try"]
        assert (done["after"], done["different_steps"]) == (2, [])
    assert os.path.exists(made.path / "by-hand.jsonl")
