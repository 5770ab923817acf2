"""`hpcresume drill` on an emulated cluster: warned, with a node lost, and where it must refuse."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.emulate.settings import default_partitions
from tests.support.launching import hpcresume, wait_until
from tests.support.mpi import child_environment

pytestmark = pytest.mark.timeout(180)

TRAINING = """\
import sys, time
import numpy as np
import hpcresume as hr

w = np.zeros(4)
with hr.session(sys.argv[1], every="20 steps", reaction=0.0) as s:
    s.track(w=w)
    for step in s.steps(100_000):
        w += np.random.standard_normal(4)
        s.log(loss=float(w.sum()))
        time.sleep(0.03)
"""


class Place:
    def __init__(self, folder: Path, cluster: EmulatedCluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.environ = child_environment(cluster.environ)
        (folder / "train.py").write_text(TRAINING)

    def job(self, name: str, *options: str) -> str:
        python = shlex.quote(sys.executable)
        launch = f"{python} -m hpcresume launch --mpi direct --pause off --run {name}"
        (self.folder / f"{name}.sh").write_text(
            "#!/bin/bash\n#SBATCH --requeue --open-mode=append --signal=B:USR1@5\ntrap '' USR1\n"
            f"exec {launch} -- {python} train.py {name}\n"
        )
        job = self.cluster.submit(*options, f"{name}.sh", cwd=self.folder)
        wait_until(lambda: self.step(name) > 25, 60)
        return job

    def step(self, name: str) -> int:
        path = sorted((self.folder / name / "attempts").glob("*/progress"))
        return int.from_bytes(path[-1].read_bytes()[:8], "little") if path else 0

    def drill(self, *words: str, code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(hpcresume("drill", *words), env=self.environ, cwd=self.folder, capture_output=True,
                              text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with EmulatedCluster(nodes=1, requeue_delay=0.5, partitions=default_partitions(grace=30.0)) as cluster:
        yield Place(tmp_path, cluster)


@pytest.mark.full
def test_a_warned_run_loses_nothing_and_a_lost_node_loses_steps_that_come_out_the_same(place):
    job = place.job("run")
    dry = json.loads(place.drill("run", "--dry-run", "--json", code=0).stdout)
    assert dry["order"] == f"scancel --batch --signal=USR1 {job}"
    assert "--yes" in place.drill("run", code=2).stderr
    assert not (place.folder / "run" / "by-hand.jsonl").exists()

    warned = json.loads(place.drill("run", "--yes", "--json", code=0).stdout)
    assert (warned["verdict"], warned["lost"], warned["before"], warned["after"]) == ("nothing lost", 0, 1, 2)
    assert warned["saved"] == warned["restored"]
    assert warned["first_step"] == warned["saved_step"] + 1
    assert 0 <= warned["warned_after"] <= warned["saved_after"] <= warned["ended_after"] < warned["again_after"]
    assert warned["skipped"] == []
    assert [(row["against"], row["given"], row["verdict"]) for row in warned["judged"]] == [
        ("grace", 30.0, "ok"), ("lead", 5.0, "ok"),
    ]  # fmt: skip
    assert "the grace of partition low is 30 s" in warned["judged"][0]["what"]
    assert warned["judged"][0]["used"] == warned["saved_after"]

    wait_until(lambda: place.step("run") % 20 in range(8, 14), 30)
    done = place.drill("run", "--yes", "--node", code=1)
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines() if "  " in line)
    assert "steps were done again" in rows["lost"]
    assert rows["curve"].startswith("the same to the last bit in all ")
    assert rows["curve"] != "the same to the last bit in all 0 repeated steps that were logged"
    assert done.stdout.rstrip().endswith("LOST")
    assert "cause crash" in rows["ended"]


def test_a_drill_refuses_what_would_not_come_back_and_what_does_not_train(place):
    place.job("fixed", "--no-requeue")
    error = place.drill("fixed", "--yes", code=69).stderr
    assert "has Requeue=0: it would not come back" in error
    assert "hpcresume" not in error.partition("try:")[0]
    assert place.drill("fixed", "--yes", "--signal=KILL", code=78).stderr.startswith("error: KILL is no warning")
    assert "one of the two" in place.drill("fixed", "--requeue", "--signal=USR1", code=2).stderr
    place.cluster.preempt(next(iter(place.cluster.engine.controller.jobs.values())).id)
    wait_until(lambda: "not at work" in subprocess.run(
        hpcresume("drill", "fixed", "--yes"), env=place.environ, cwd=place.folder, capture_output=True, text=True,
        timeout=60, check=False).stderr, 60)  # fmt: skip
    assert place.drill("nowhere", "--yes", code=73).stdout == ""
