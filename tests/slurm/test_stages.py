"""Chains on a real Slurm: stages that wait for each other through preemptions and failures, and go on from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcresume.ops.resources import example_path
from hpcresume.slurm.dependents import lead_over
from tests.slurm.cluster import Cluster, running_cluster, skip_without_slurm

pytestmark = pytest.mark.timeout(300)
EXAMPLE = example_path("stages/job.yaml").parent
CRASHING = Path(__file__).with_name("crashing.py")
STEPS = 60

FAILING = """\
name: chain
resources: {partition: low, time: 10min}
requeue: {warning_lead: 1min, pause: 'off', max_crashes: 1}
stages:
  first: {command: COMMAND}
  second: {after: [first], command: bash -c 'test -e "$HPCRESUME_STAGE_FIRST_RUN/DONE"'}
  third: {after: [second], command: 'true'}
"""


class Chain:
    """A folder with a job.yaml, and the verbs in it as a user types them."""

    def __init__(self, cluster: Cluster, folder: Path, run: str) -> None:
        self.cluster, self.folder, self.run = cluster, folder, run
        self.env = {**os.environ, **cluster.env, "PATH": f"{Path(sys.executable).parent}:{cluster.env['PATH']}"}

    def verb(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hpcresume", *words], cwd=self.folder, env=self.env, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr + self.logs()
        return done.stdout

    def json(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.verb(words[0], "--json", *words[1:]))
        return found

    def submit(self) -> dict[str, str]:
        """Stage → job."""
        return {each["stage"]: each["job_id"] for each in self.json("submit")["stages"]}

    def reason(self, job: str) -> str:
        words = ("squeue", "--noheader", "--states=all", "--Format=State:20,Reason:40", f"--jobs={job}")
        return " ".join(self.cluster.command(*words).split())

    def rows(self) -> dict[str, dict[str, Any]]:
        return {Path(row["run"]).name: row for row in self.json("status", self.run)["runs"]}

    def logs(self) -> str:
        return "".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("slurm-*.out")))

    def wait(self, condition: Any, what: str, timeout: float = 120) -> None:
        self.cluster.wait(condition, f"{what}\n{self.logs()}", timeout)

    def wait_until_done(self, timeout: float = 180) -> None:
        self.wait(lambda: all(row["state"] == "done" for row in self.rows().values()), "all stages done", timeout)


@pytest.fixture
def example(cluster: Cluster, tmp_path: Path) -> Chain:
    """examples/stages, with shorter times."""
    return shortened(cluster, tmp_path / "e")


def shortened(cluster: Cluster, folder: Path) -> Chain:
    """A copy of the example that asks for a partition of the cluster, and whose training takes some ten seconds."""
    shutil.copytree(EXAMPLE, folder)
    text = (folder / "job.yaml").read_text()
    changed = text.replace("{nodes: 1, time: 30min}", "{nodes: 1, time: 30min, partition: low}")
    changed = changed.replace("--steps 400", f"--steps {STEPS} --pause 0.2")
    assert changed.count("partition: low") == changed.count(f"--steps {STEPS}") == 1
    (folder / "job.yaml").write_text(changed)
    return Chain(cluster, folder, "runs/fit")


@pytest.fixture
def failing(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Chain:
    """Three small stages; the first, a program or a session, fails for as long as a file `bug` is there."""
    session = f"""bash -c 'exec {sys.executable} {CRASHING} "$HPCRESUME_RUN" .'"""
    first = {"program": "bash -c 'test ! -e bug'", "session": session}[request.param]
    (tmp_path / "job.yaml").write_text(FAILING.replace("COMMAND", first))
    (tmp_path / "bug").touch()
    return Chain(cluster, tmp_path, "runs/chain")


def preempt(cluster: Cluster, out: Path, node: str) -> str:
    """A job of the high partition wants this node for a second; its number."""
    words = ("--partition=high", f"--nodelist={node}", "--exclusive", f"--output={out / 'high.log'}", "--wrap=sleep 1")
    return cluster.command("sbatch", "--parsable", *words).strip()


def undisturbed(folder: Path) -> dict[str, Any]:
    """The result of the same three programs, one after the other, without Slurm and without a supervisor."""
    for stage, words in (("prepare", ["prepare.py"]), ("train", ["train.py", "--steps", str(STEPS), "--pause", "0"]),
                         ("evaluate", ["evaluate.py"])):  # fmt: skip
        told = {f"HPCRESUME_STAGE_{name.upper()}_RUN": f"plain/{name}" for name in ("prepare", "train")}
        subprocess.run([sys.executable, *words], cwd=folder, env={**os.environ, **told,
                       "HPCRESUME_RUN": f"plain/{stage}"}, check=True, timeout=60)  # fmt: skip
    result: dict[str, Any] = json.loads((folder / "plain/evaluate/result.json").read_text())
    return result


def test_a_chain_whose_middle_is_preempted_ends_as_an_undisturbed_one_and_says_what_it_was_made_from(
    cluster, example, tmp_path
):
    jobs = example.submit()
    assert list(jobs) == ["prepare", "train", "evaluate"]
    assert example.rows()["evaluate"]["next"] == "starts by itself"
    example.wait(lambda: (example.rows()["train"]["step"] or 0) > 5, "steps of train")
    assert example.reason(jobs["evaluate"]) == "PENDING Dependency"
    preempt(cluster, tmp_path, cluster.job(jobs["train"])["NodeList"])
    example.wait(lambda: cluster.job(jobs["train"])["Restarts"] == "1", "a requeue of train")
    seen = set()

    def train_is_done() -> bool:
        seen.add(example.reason(jobs["evaluate"]))
        return example.rows()["train"]["state"] == "done"

    example.wait(train_is_done, "the end of train")
    assert "PENDING Dependency" in seen
    assert not any("Never" in each or "FAILED" in each for each in seen), seen
    example.wait_until_done()
    assert {name: row["job_id"] for name, row in example.rows().items() if name == "train"} == {"train": jobs["train"]}
    assert json.loads((example.folder / "runs/fit/evaluate/result.json").read_text()) == {
        **undisturbed(example.folder), "generation": f"g{STEPS:012d}-a0002"
    }  # fmt: skip
    train, evaluate = (example.rows()[name]["made_from"] for name in ("train", "evaluate"))
    assert [each["stage"] for each in train] == ["prepare"]
    assert [(each["stage"], each.get("attempt"), each.get("generation")) for each in evaluate] == [
        ("prepare", None, None), ("train", 2, f"g{STEPS:012d}-a0002")
    ]  # fmt: skip
    told = example.verb("why", "runs/fit")
    assert "made from prepare" in told
    assert f"train (attempt 2, g{STEPS:012d}-a0002)" in told
    assert example.json("submit")["stages"][1]["kind"] == "done", "submitting it again starts nothing"


@pytest.mark.full
@pytest.mark.slurm_versions
@pytest.mark.parametrize("failing", ["program"], indirect=True)
def test_a_failed_stage_leaves_those_behind_it_waiting_and_requeue_goes_on_from_it(failing):
    jobs = failing.submit()
    failing.wait(lambda: failing.reason(jobs["first"]).startswith("FAILED"), "a failure")
    failing.wait(lambda: failing.reason(jobs["second"]) == "PENDING DependencyNeverSatisfied", "no way on", 90)
    rows = failing.rows()
    assert rows["second"]["state"] == "held"
    assert rows["second"]["doing"] == f"job {jobs['second']} never starts: first failed (DependencyNeverSatisfied)"
    assert rows["second"]["next"] == "hpcresume requeue runs/chain"
    assert rows["third"]["doing"] == f"job {jobs['third']} waits for second"
    (failing.folder / "bug").unlink()
    steps = {each["stage"]: each for each in failing.json("requeue", "runs/chain")["stages"]}
    assert [steps[name]["kind"] for name in jobs] == ["submit", "point", "waiting"]
    assert steps["second"]["job_id"] == jobs["second"]
    failing.wait_until_done()


@pytest.mark.full
@pytest.mark.parametrize("failing", ["session"], indirect=True)
def test_a_stage_that_is_held_in_the_queue_keeps_the_others_waiting_until_it_is_released(failing):
    jobs = failing.submit()
    failing.wait(lambda: "held" in failing.reason(jobs["first"]), "a hold")
    failing.wait(lambda: failing.reason(jobs["first"]).startswith("PENDING"), "it waits")
    assert failing.reason(jobs["second"]) == "PENDING Dependency"
    (failing.folder / "bug").unlink()
    kinds = [each["kind"] for each in failing.json("requeue", "runs/chain")["stages"]]
    assert kinds == ["release", "waiting", "waiting"]
    failing.wait_until_done()


@pytest.mark.full
@pytest.mark.slurm_versions
@pytest.mark.parametrize("failing", ["program"], indirect=True)
def test_a_stage_that_nobody_lets_wait_looks_by_itself_whether_those_before_it_are_done(cluster, failing):
    """Its script submitted by hand, first while nobody works on the stage before, then while somebody does."""
    script = failing.folder / "second.sbatch"
    failing.verb("render", "--stage", "second", "-o", str(script))
    alone = cluster.command("sbatch", "--parsable", f"--chdir={failing.folder}", str(script)).strip()
    failing.wait(lambda: "held state" in failing.reason(alone), "a hold")
    words = ("squeue", "--noheader", "--states=all", "--Format=Comment:200", f"--jobs={alone}")
    assert cluster.command(*words).strip().startswith("hpcresume: held: first is not done (no attempt of it is known)")
    jobs = failing.json("submit", "--", "--hold")
    first = jobs["stages"][0]["job_id"]
    failing.wait(lambda: failing.reason(alone).startswith("PENDING"), "it waits")
    cluster.command("scontrol", "release", alone)
    failing.wait(lambda: failing.reason(alone) == "PENDING Dependency", "it waits for the first")
    (failing.folder / "bug").unlink()
    for each in jobs["stages"]:
        cluster.command("scontrol", "release", each["job_id"])
    failing.wait(lambda: cluster.job(alone)["JobState"] == "COMPLETED", "an end")
    assert cluster.job(first)["JobState"] == "COMPLETED"
    failing.wait_until_done()


@pytest.mark.full
@pytest.mark.parametrize("failing", ["program"], indirect=True)
def test_a_chain_is_cancelled_as_one_and_submitted_again_it_goes_on(cluster, failing):
    (failing.folder / "bug").unlink()
    jobs = {each["stage"]: each["job_id"] for each in failing.json("submit", "--", "--hold")["stages"]}
    cluster.command("scontrol", "release", jobs["first"])
    failing.wait(lambda: failing.rows()["first"]["state"] == "done", "the first stage")
    told = failing.json("cancel", "runs/chain", "--yes")
    assert [each["stage"] for each in told["stages"] if each["done"]] == ["third", "second"]
    failing.wait(
        lambda: all(failing.reason(jobs[name]).startswith("CANCELLED") for name in ("second", "third")), "ends"
    )
    assert [each["kind"] for each in failing.json("submit")["stages"]] == ["done", "submit", "submit"]
    failing.wait_until_done()


@pytest.fixture
def forbidding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A site that requeues nothing unless asked (JobRequeue=0)."""
    skip_without_slurm()
    with running_cluster(tmp_path_factory.mktemp("forbidding") / "c", extra={"JobRequeue": "0"}) as running:
        yield running


@pytest.mark.full
def test_a_stage_that_goes_on_as_another_job_takes_those_behind_it_along(forbidding, tmp_path):
    example = shortened(forbidding, tmp_path / "e")
    jobs = example.submit()
    example.wait(lambda: (example.rows()["train"]["step"] or 0) > 5, "steps of train")
    forbidding.command("scontrol", "update", f"JobId={jobs['train']}", "Requeue=0")
    forbidding.command("scancel", "--batch", "--signal=USR1", jobs["train"])
    example.wait(lambda: forbidding.job(jobs["train"])["JobState"] == "FAILED", "the end of the first job")
    new = forbidding.job(jobs["evaluate"])["Dependency"]
    assert new.startswith("afterok:")
    assert new.partition("(")[0] not in (f"afterok:{jobs['train']}", f"afterok:{jobs['prepare']}"), example.logs()
    example.wait_until_done()
    assert example.rows()["evaluate"]["made_from"][1]["generation"] == f"g{STEPS:012d}-a0002"


@pytest.mark.full
@pytest.mark.slurm_versions
def test_who_waits_for_a_job_is_led_over_to_the_one_that_goes_on_instead(cluster, tmp_path, monkeypatch):
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)

    def sbatch(*words: str) -> str:
        return cluster.command("sbatch", "--parsable", f"--output={tmp_path}/%j", "--wrap=true", *words).strip()

    old, new, other = sbatch("--hold"), sbatch("--hold"), sbatch("--hold")
    follower = sbatch(f"--dependency=afterok:{old}:{other}")
    any_end, guard = sbatch(f"--dependency=afterany:{old}"), sbatch(f"--dependency=afternotok:{old}")
    ours = sbatch(f"--dependency=afterany:{old}")
    assert set(lead_over(old, new, but=[ours])) == {(follower, ""), (any_end, "")}
    waits = {
        job: cluster.job(job)["Dependency"].replace("(unfulfilled)", "") for job in (follower, any_end, guard, ours)
    }
    assert waits == {follower: f"afterok:{new},afterok:{other}", any_end: f"afterany:{new}",
                     guard: f"afternotok:{old}", ours: f"afterany:{old}"}  # fmt: skip
    cluster.command("scancel", old, new, other, follower, any_end, guard, ours)
