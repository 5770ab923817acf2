"""status, why, logs, cancel and requeue on a real cluster: its own words are understood, its own doings waited for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support.launching import hpcresume

pytestmark = [pytest.mark.timeout(240), pytest.mark.slurm_versions]

ROOT = Path(__file__).parents[2]
TRAINING = """\
import sys, time
from pathlib import Path
import numpy as np
import hpcresume as hr

run, total = sys.argv[1], int(sys.argv[2])
w = np.zeros(4)
with hr.session(run, every="1000 steps", reaction=0.0) as s:
    s.track(w=w)
    for step in s.steps(total):
        w += step
        if step == 5 and Path(run + "-broken").exists():
            raise ValueError("no such file")
        if not Path(run + "-hurry").exists():
            time.sleep(0.05)
print("sum", w[0], flush=True)
"""
HOSTILE = "x y\n|\t\x1b[31m JobState=DONE \u202e" + "z" * 900


class Place:
    """A folder with a training beside a real cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        (folder / "train.py").write_text(TRAINING)

    def submit(self, name: str, steps: int, *options: str) -> str:
        run = self.folder / name
        python = f"{sys.executable}"
        script = self.folder / f"{name}.sh"
        script.write_text(
            "#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 --requeue --open-mode=append --signal=B:USR1@30\n"
            f"cd {ROOT}\ntrap '' USR1\nexec {python} -m hpcresume launch --mpi direct --pause off --run {run} "
            f"-- {python} {self.folder}/train.py {run} {steps}\n"
        )
        return self.cluster.submit(script, f"--output={self.folder}/{name}.log", *options)

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(hpcresume(*words), env=self.cluster.env, cwd=ROOT, capture_output=True, text=True,
                              timeout=120, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def status(self, name: str) -> dict:
        (row,) = json.loads(self.run("status", str(self.folder / name), "--json"))["runs"]
        return row

    def state(self, job: str) -> str:
        """By squeue: the record of scontrol can be taken in by the job's name."""
        return self.cluster.command("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}").strip()

    def step(self, name: str) -> int:
        files = sorted((self.folder / name).glob("attempts/*/progress"))
        return int.from_bytes(files[-1].read_bytes()[:8], "little") if files else 0

    def wait_for(self, name: str, state: str, attempt: int = 1) -> dict:
        self.cluster.wait(lambda: (self.folder / name / "run.json").exists(), f"run {name}", 60)

        def there() -> bool:
            row = self.status(name)
            return row["state"] == state and (row["attempt"] or 0) >= attempt

        self.cluster.wait(there, f"{name} {state}: {self.status(name)}", 120)
        return self.status(name)


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Place:
    return Place(cluster, tmp_path)


def test_a_saved_and_cancelled_job_is_gone_and_comes_back_when_asked(place):
    job = place.submit("a", 100_000, f"--job-name={HOSTILE}", f"--comment={HOSTILE}")
    place.cluster.wait(lambda: place.step("a") > 5, "steps", 90)
    row = place.wait_for("a", "running")
    assert (row["job_id"], row["job_state"], row["nodes"][:1]) == (job, "RUNNING", "n")
    run = str(place.folder / "a")
    said = json.loads(place.run("cancel", run, "--save", "--yes", "--json"))
    assert said["done"]
    assert said["generation"] is not None
    assert place.state(job) == "CANCELLED"
    row = place.status("a")
    assert (row["state"], row["lost_steps"], row["generation_step"]) == ("ended", 0, row["step"])
    assert row["step"] > 5

    (place.folder / "a-hurry").write_text("")
    assert json.loads(place.run("requeue", run, "--json"))["kind"] == "requeue"
    row = place.status("a")
    assert row["state"] in ("requeued", "running")
    row = place.wait_for("a", "done", 2)
    assert row["lost_steps"] == 0
    story = " ".join(place.run("why", run).split())
    assert f"in job {job} (start " in story
    parts = json.loads(place.run("logs", run, "--json"))["parts"]
    assert [part["attempt"] for part in parts] == [1, 2]
    assert parts[-1]["path"] == str(place.folder / "a.log")
    assert f"sum {float(sum(range(100_000)))}" in parts[-1]["lines"]


def test_a_job_that_is_held_in_the_queue_is_seen_and_released(place):
    (place.folder / "b-broken").write_text("")
    job = place.submit("b", 50)
    row = place.wait_for("b", "held", 3)
    assert "3 attempts ended by crash without checkpoint progress" in row["doing"]
    assert row["job_id"] == job
    run = str(place.folder / "b")
    would = json.loads(place.run("requeue", run, "--dry-run", "--json"))
    (place.folder / "b-broken").unlink()
    done = json.loads(place.run("requeue", run, "--json"))
    assert (would["kind"], done["kind"]) == ("release", "release")
    assert "b is done: finished at step 50" in place.run("watch", run, "--every", "0.2", "--ask-every", "1")


def test_every_way_to_wait_is_told_in_plain_words_by_one_squeue(place):
    for name in ("c", "d"):
        (place.folder / name / "submit").mkdir(parents=True)
    held = place.submit("c", 10, "--hold", f"--job-name={HOSTILE}")
    later = place.submit("d", 10, "--begin=now+2hours")
    for name, job in (("c", held), ("d", later)):
        (place.folder / name / "submit" / "job.json").write_text(json.dumps({"job_id": job, "submitted_at": 1.0}))
    try:
        rows = json.loads(place.run("status", str(place.folder), "--json"))["runs"]
        found = {Path(row["run"]).name: row for row in rows}
        assert (found["c"]["state"], found["c"]["job_reason"]) == ("held", "JobHeldUser")
        assert "held in the queue by its owner" in found["c"]["doing"]
        assert found["d"]["state"] == "pending"
        assert "waits for the time from which it may start (BeginTime), expected to start in " in found["d"]["doing"]
        assert "nothing to cancel" not in place.run("cancel", str(place.folder / "d"), "--yes")
        assert place.state(later) == "CANCELLED"
        assert place.status("d")["state"] == "ended"
    finally:
        place.cluster.command("scancel", held, later)
