"""`hpcresume submit` on a real cluster: hostile values reach Slurm letter for letter, and one job a run."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpcresume.config.job import read_job
from hpcresume.errors import ConfigError
from hpcresume.submit.script import render
from tests.slurm.cluster import Cluster
from tests.submit.scripts import sbatch_words
from tests.submit.test_hostile_values import PAYLOADS
from tests.support.lacking import needed


@pytest.fixture
def here(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job that asks for a partition of the cluster and ends at once."""
    monkeypatch.chdir(tmp_path)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{cluster.env['PATH']}")
    (tmp_path / "job.yaml").write_text("name: first\ncommand: 'true'\nresources: {partition: low, time: 10min}\n")
    return tmp_path


def submit(*words: str) -> tuple[int, dict, str]:
    """Run the verb as a user would: exit code, its one JSON object, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcresume", "submit", "--json", *words], capture_output=True, text=True, timeout=60
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_hostile_values_reach_slurm_as_they_are(cluster, here):
    """Name and comment of held jobs, as Slurm gives them back; and our own reading of #SBATCH lines is sbatch's."""
    accepted = 0
    for payload in PAYLOADS:
        resources = {"partition": "low", "time": "10min", "options": [f"--comment={payload}", "--hold"]}
        try:
            script = render(read_job(json.dumps({"name": payload, "command": "true", "resources": resources})).spec)
        except ConfigError:
            continue
        (here / "job.sbatch").write_text(script)
        job = cluster.submit(here / "job.sbatch")
        words = dict(word.partition("=")[::2] for word in sbatch_words(script))
        assert cluster.command("squeue", "-h", "-j", job, "-o", "%j").rstrip("\n") == payload
        assert cluster.command("squeue", "-h", "-j", job, "-o", "%k").rstrip("\n") == words["--comment"] == payload
        cluster.command("scancel", job)
        accepted += 1
    assert accepted >= 35
    assert not (here / "HIT").exists()


def test_preflight_asks_the_partition_for_its_limits(here):
    for setting, said in (
        ("resources.partition=nowhere", "there is no partition nowhere"),
        ("resources.nodes=64", "low has only 2 nodes, and the job wants 64"),
    ):
        code, found, _ = submit("--dry-run", "--set", setting)
        assert (code, [c["detail"] for c in found["checks"] if c["outcome"] == "failed"]) == (78, [said])
    code, found, _ = submit("--dry-run", "--set", "resources.partition=")
    (check,) = [c for c in found["checks"] if c["name"] == "partition"]
    assert (code, check["outcome"], check["detail"].partition(";")[0]) == (0, "ok", "low")


def test_a_run_has_one_job_at_a_time(cluster, here):
    code, first, _ = submit("--", "--hold")
    assert code == 0
    assert cluster.job(first["job_id"])["JobName"] == "first"
    script = here / "runs" / "first" / "submit" / "script.sbatch"
    assert stat.S_IMODE(script.stat().st_mode) == 0o600
    code, refused, _ = submit()
    assert (code, f"job {first['job_id']} (PENDING)" in refused["error"]["what"]) == (73, True)
    code, second, _ = submit("--again", "--", "--hold")
    assert (code, second["job_id"] != first["job_id"]) == (0, True)
    for job in (first, second):
        cluster.command("scancel", job["job_id"])
    code, third, _ = submit("--set", "command=/bin/echo it ran", "--set", "log=%x-%j.log", "--set", "run=runs/x")
    assert code == 0
    cluster.wait(
        lambda: cluster.job(third["job_id"])["JobState"] not in ("PENDING", "RUNNING", "CONFIGURING"), "end", 90
    )
    assert "it ran" in (here / third["log"]).read_text(), os.listdir(here)


def test_slurm_s_own_refusal_is_shown(here):
    code, found, _ = submit("--", "--licenses=none_such:1")
    assert (code, found["error"]["kind"]) == (69, "SlurmError")
    assert "sbatch refused: sbatch: error:" in found["error"]["what"]


@pytest.mark.parametrize("told", ["option", "variable"])
def test_the_ranks_of_a_job_without_the_callers_environment_get_the_jobs_own(cluster, here, monkeypatch, told):
    """Some sites ask for --export=NONE; sbatch hands that on to srun, which would then start the ranks without it."""
    if told == "variable":
        monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    sets = [f"environment.venv={sys.prefix}", "command=env", "log=%j.log", "environment.variables={FROM_THE_JOB: x}"]
    words = [word for each in sets for word in ("--set", each)]
    code, job, err = submit(*words, *(["--", "--export=NONE"] if told == "option" else []))
    assert code == 0, err
    cluster.wait(lambda: cluster.job(job["job_id"])["JobState"] not in ("PENDING", "RUNNING", "CONFIGURING"), "end", 90)
    lines = (here / job["log"]).read_text().splitlines()
    assert "FROM_THE_JOB=x" in lines
    assert "HPCRESUME_RUN=runs/first" in lines
    assert any(line.startswith("HPCRESUME_LAUNCH_DIR=") for line in lines)


def test_a_function_that_names_no_time_has_the_partitions_and_not_submitits_five_minutes(cluster, here):
    needed("submitit")
    sets = ["command=", "function=json:loads", "args=['1']", "resources.options=[--hold]", "environment.venv="]
    limits = {}
    for time in ("", "UNLIMITED", "390s"):
        words = [word for each in (*sets, f"resources.time={time}") for word in ("--set", each)]
        code, job, err = submit("--again", *words)
        assert code == 0, err
        limits[time] = cluster.job(job["job_id"])["TimeLimit"]
        cluster.command("scancel", job["job_id"])
    (here / "plain.sbatch").write_text("#!/bin/bash\n#SBATCH --hold --partition=low\ntrue\n")
    plain = cluster.submit(here / "plain.sbatch")
    assert limits == {"": cluster.job(plain)["TimeLimit"], "UNLIMITED": "UNLIMITED", "390s": "00:07:00"}
    cluster.command("scancel", plain)
