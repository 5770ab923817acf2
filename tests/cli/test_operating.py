"""status, watch, logs, why, cancel and requeue as an operator uses them, on an emulated cluster with real jobs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from hpcresume.cli.main import main
from hpcresume.emulate.cluster import EmulatedCluster
from tests.support.launching import hpcresume, wait_until
from tests.support.mpi import child_environment

pytestmark = pytest.mark.timeout(120)

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
        if step == 13 and Path("broken-" + Path(run).name).exists():
            raise ValueError("no \\x1b[31msuch\\nfile")
        if (step + 1) % 10 == 0:
            print("step", step + 1, flush=True)
        while step == 3 and Path("stuck-" + Path(run).name).exists():
            time.sleep(0.05)
        if not Path("hurry-" + Path(run).name).exists():
            time.sleep(0.03)
print("sum", w[0], flush=True)
"""


class Place:
    """A folder with a training, and a cluster around it."""

    def __init__(self, folder: Path, cluster: EmulatedCluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.environ = child_environment(cluster.environ)

    def job(self, name: str, steps: int, *directives: str) -> str:
        """Submit a run by hand; return the job."""
        python = shlex.quote(sys.executable)
        launch = f"{python} -m hpcresume launch --mpi direct --pause off --run runs/{name}"
        (self.folder / f"{name}.sh").write_text(
            "#!/bin/bash\n#SBATCH --requeue --open-mode=append --signal=B:USR1@5\ntrap '' USR1\necho prelude\n"
            f"exec {launch} -- {python} train.py runs/{name} {steps}\n"
        )
        return self.cluster.submit(*directives, f"--job-name={name}", f"{name}.sh", cwd=self.folder)

    def submit(self, name: str, steps: int, **resources: str) -> str:
        """Submit a run by `hpcresume submit`; return the job."""
        command = f"{sys.executable} train.py {'$HPCRESUME_RUN' if resources else f'runs/{name}'} {steps}"
        command = f"bash -c 'exec {command}'" if resources else command
        log = f"{name}-%A_%a.log" if resources else f"{name}.log"
        job = {"name": name, "command": command, "starter": "mpiexec", "resources": {"time": "10min", **resources},
               "requeue": {"warning_lead": "5s"}, "log": log}  # fmt: skip
        (self.folder / f"{name}.yaml").write_text(json.dumps(job))
        return str(self.json("submit", f"{name}.yaml")["job_id"])

    def run(self, *words: str, code: int = 0) -> str:
        """A verb's standard output, called in this process."""
        out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(mock.patch.dict(os.environ, self.environ, clear=True))
                stack.enter_context(mock.patch("sys.stdin", io.StringIO()))
                stack.enter_context(contextlib.redirect_stdout(out))
                stack.enter_context(contextlib.redirect_stderr(err))
                found = main(words)
        finally:
            os.chdir(before)
        assert isinstance(out.buffer, io.BytesIO)
        text = out.buffer.getvalue().decode()
        assert found == code, (words, found, text, err.getvalue())
        return text

    def json(self, *words: str, code: int = 0) -> dict:
        return json.loads(self.run(*words, "--json", code=code))

    def status(self, name: str) -> dict:
        (row,) = self.json("status", f"runs/{name}")["runs"]
        return row

    def step(self, name: str) -> int:
        path = sorted((self.folder / "runs" / name / "attempts").glob("*/progress"))
        return int.from_bytes(path[-1].read_bytes()[:8], "little") if path else 0

    def wait_for(self, name: str, step: int) -> None:
        wait_until(lambda: self.step(name) >= step)

    def hurry(self, name: str) -> None:
        """Until now it has trained slowly, and would for a minute."""
        (self.folder / f"hurry-{name}").write_text("")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(TRAINING)
    return tmp_path


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    with EmulatedCluster(nodes=2, requeue_delay=0.5) as cluster:
        yield Place(folder, cluster)


def end_of(total: int) -> str:
    """What the training prints at its end when nothing was lost and nothing done twice."""
    return f"sum {float(sum(range(total)))}"


def test_one_run_preempted_and_one_held_as_an_operator_sees_them(place):
    (place.folder / "broken-bad").write_text("")
    hostile = "x\n|\x1b[31m\u202e" + "y" * 60_000
    good = place.job("good", 2000)
    place.wait_for("good", 20)
    bad = place.job("bad", 100, "--comment", hostile)
    place.hurry("bad")
    place.cluster.preempt(good)
    wait_until((place.folder / "runs" / "bad" / "run.json").exists)
    wait_until(lambda: place.status("bad")["state"] == "held")
    wait_until(lambda: place.status("good")["attempt"] == 2)

    table = place.run("status", "runs")
    why = "3 attempts ended by crash without checkpoint progress"
    assert re.search(rf"^bad +held .* {why} .*hpcresume requeue runs/bad", table, re.M)
    assert re.search(r"^good +running +2 +\d+/2000 +\d+ .* 0  job \d+ on n\d", table, re.M)
    assert len(table.splitlines()) == 4
    place.run("status", "runs", "--check", code=77)

    last = place.run("why", "runs/bad").splitlines()[-1]
    assert last.startswith("next: hpcresume why runs/bad, then hpcresume requeue runs/bad")
    story = " ".join(place.run("why", "runs/bad").split())
    assert story.count("ended at") == 3
    assert "Rank 0 raised ValueError at step 13: no \\x1b[31msuch file" in story
    assert "Decided: held (3 attempts ended by crash without checkpoint progress (limit 3))" in story
    assert "preempted (Slurm wanted its nodes for another job)" in " ".join(
        place.run("why", "runs/good", "--attempt", "1").split()
    )

    parts = place.json("logs", "runs/bad")["parts"]
    assert [part["attempt"] for part in parts] == [1, 2, 3]
    assert parts[0]["lines"][0] == "prelude"
    assert all(any("ValueError" in line for line in part["lines"]) for part in parts)
    assert place.run("logs", "runs/bad", "-n", "1").count("==>") == 1
    place.run("logs", "runs/bad", "--rank", "1", code=78)  # nothing says whose lines they are

    (place.folder / "broken-bad").unlink()
    assert place.json("requeue", "runs/bad", "--dry-run")["kind"] == "release"
    assert place.status("bad")["state"] == "held", "a dry run changes nothing"
    assert place.json("requeue", "runs/bad") | {"steps": []} == {
        "run": "runs/bad", "kind": "release", "job_id": bad, "steps": [], "done": True,
        "state": "held: 3 attempts ended by crash without checkpoint progress (limit 3)",
    }  # fmt: skip
    assert "bad is done: finished at step 100" in place.run("watch", "runs/bad", "--every", "0.2", "--ask-every", "1")
    assert "requeue of job" in place.run("why", "runs/bad")
    assert end_of(100) in place.run("logs", "runs/bad", "-n", "9")
    place.hurry("good")
    place.cluster.wait(good, timeout=60)
    assert (place.status("good")["state"], place.status("good")["lost_steps"]) == ("done", 0)
    place.run("status", "runs", "--check", "--verify")


def test_cancel_saves_first_and_requeue_goes_on_from_there(place):
    job = place.job("a", 2000)
    place.wait_for("a", 5)
    place.run("cancel", "runs/a", code=2)  # nobody can be asked
    would = place.json("cancel", "runs/a", "--save", "--dry-run")
    assert [order["arguments"] for order in would["orders"]] == [
        ["scancel", "--batch", "--signal=USR1", job],
        ["scancel", job],
    ]
    assert place.status("a")["state"] == "running"
    said = place.json("cancel", "runs/a", "--save", "--yes")
    assert said["done"]
    assert said["generation"] is not None
    assert place.cluster.job(job).state == "CANCELLED"
    now = place.status("a")
    assert (now["state"], now["lost_steps"]) == ("ended", 0)
    assert now["generation_step"] == now["step"] >= 5
    deeds = place.json("why", "runs/a")["by_hand"]
    assert [deed.split()[0] for deed in deeds] == ["warn", "cancel"]
    assert "nothing to cancel" in place.run("cancel", "runs/a", "--yes")

    place.hurry("a")
    assert place.json("requeue", "runs/a")["kind"] == "requeue"
    place.cluster.wait(job, timeout=60)
    assert place.status("a")["state"] == "done"
    assert end_of(2000) in place.run("logs", "runs/a", "-n", "9")
    place.run("requeue", "runs/a", code=73)  # it is finished
    assert place.json("requeue", "runs/a", "--reopen", "--dry-run")["steps"][0].startswith("remove ")


@pytest.mark.full
def test_a_job_that_slurm_has_forgotten_is_submitted_again_from_its_folder(folder):
    with EmulatedCluster(nodes=2) as cluster:
        place = Place(folder, cluster)
        place.submit("a", 2000)
        place.wait_for("a", 5)
        place.run("cancel", "runs/a", "--yes")
        assert place.status("a")["state"] == "ended"
    with EmulatedCluster(nodes=2) as cluster:
        place = Place(folder, cluster)
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        place.folder = elsewhere
        would = place.json("requeue", "../runs/a", "--dry-run")
        assert would["kind"] == "submit"
        assert would["steps"] == [f"cd {folder} && sbatch {folder}/runs/a/submit/script.sbatch"]
        job = place.json("requeue", "../runs/a")["job_id"]
        place.folder = folder
        place.hurry("a")
        cluster.wait(job, timeout=60)
        assert (place.status("a")["state"], place.status("a")["attempt"]) == ("done", 2)
        assert end_of(2000) in (folder / "a.log").read_text()
        assert [part["attempt"] for part in place.json("logs", "runs/a")["parts"]] == [1, 2]


def test_a_job_that_slurm_has_forgotten_hides_no_other_one(place):
    """Real squeue passes over an unknown job among several; asked for it alone it fails."""
    job = place.cluster.submit("--hold", "--wrap", "true", cwd=place.folder)
    for name, number in (("known", job), ("forgotten", "1")):
        (place.folder / "runs" / name / "submit").mkdir(parents=True)
        (place.folder / "runs" / name / "submit" / "job.json").write_text(json.dumps({"job_id": number}))
    rows = place.json("status", "runs")["runs"]
    assert [(Path(row["run"]).name, row["state"]) for row in rows] == [("forgotten", "ended"), ("known", "held")]
    assert place.status("forgotten")["state"] == "ended"


def test_what_is_not_saved_in_time_is_not_cancelled(place):
    (place.folder / "stuck-a").write_text("")
    job = place.job("a", 2000)
    place.wait_for("a", 3)
    place.run("cancel", "runs/a", "--save", "--yes", "--wait", "1s", code=74)
    assert place.cluster.job(job).state == "RUNNING"


def test_a_log_is_followed_over_a_preemption_to_its_end(place):
    job = place.job("a", 2000)
    place.wait_for("a", 5)
    with subprocess.Popen(
        hpcresume("logs", "runs/a", "--follow"), cwd=place.folder, env=child_environment(place.cluster.environ),
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        begun = process.stdout.readline()
        place.cluster.preempt(job)
        wait_until((place.folder / "runs/a/attempts/0002/progress").exists)
        place.hurry("a")
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert begun.startswith("==> attempt 1 · ")
    assert [line.split(" · ")[0] for line in out.splitlines() if line.startswith("==>")] == ["==> attempt 2"]
    steps = [int(line.split()[1]) for line in out.splitlines() if re.fullmatch(r"step \d+", line)]
    assert steps == sorted(steps)
    assert steps[-1] == 2000
    assert end_of(2000) in out


@pytest.mark.full
def test_tasks_of_an_array_are_cancelled_and_submitted_again_one_by_one(folder):
    with EmulatedCluster(nodes=2) as cluster:
        place = Place(folder, cluster)
        array = place.submit("sweep", 2000, array="0-1")
        for task in (0, 1):
            place.wait_for(f"sweep-{task}", 5)
        names = {row["run"]: row["state"] for row in place.json("status", "runs/sweep")["runs"]}
        assert names == {"runs/sweep-0": "running", "runs/sweep-1": "running"}
        place.run("cancel", "runs/sweep-1", "--yes")
        assert [cluster.job(f"{array}_{task}").state for task in (0, 1)] == ["RUNNING", "CANCELLED"]
        place.hurry("sweep-0")
        cluster.wait(f"{array}_0", timeout=60)
    with EmulatedCluster(nodes=2) as cluster:
        place = Place(folder, cluster)
        place.hurry("sweep-1")
        job = place.json("requeue", "runs/sweep-1")["job_id"]
        assert job.endswith("_1")
        cluster.wait(job, timeout=60)
        assert [row["state"] for row in place.json("status", "runs/sweep")["runs"]] == ["done", "done"]


def test_a_run_without_slurm_is_told_and_never_asks_for_it(folder):
    """On a laptop: no squeue on PATH, and nobody misses it."""
    environ = {**child_environment({}), "PATH": str(folder / "bin")}
    (folder / "bin").mkdir()
    words = hpcresume(
        "launch", "--mpi", "direct", "--run", "runs/a", "--", sys.executable, "train.py", "runs/a", "2000"
    )
    with (folder / "log").open("w") as log, subprocess.Popen(words, cwd=folder, env=environ, stdout=log, stderr=log):
        wait_until(lambda: (folder / "runs/a/attempts/0001/progress").exists())

        def verb(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                hpcresume(*words), cwd=folder, env=environ, capture_output=True, text=True, timeout=60
            )

        running = verb("status", "runs")
        assert (running.returncode, running.stderr) == (0, "")
        assert re.search(r"^a +running .* on this machine", running.stdout, re.M)
        refused = verb("cancel", "runs/a", "--yes")
        assert refused.returncode == 69
        assert "no job in Slurm" in refused.stderr
        busy = verb("requeue", "runs/a")
        assert (busy.returncode, "at work" in busy.stderr) == (73, True)
        (folder / "hurry-a").write_text("")
        watched = verb("watch", "runs/a", "--every", "0.2")
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout.splitlines()[-1] == "a is done: finished at step 2000"
    assert verb("status", "runs/a").stdout.splitlines()[-1].startswith("a    done")
    assert "from nothing" in verb("logs", "runs/a").stdout
