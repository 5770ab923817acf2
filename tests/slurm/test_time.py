"""Time on a real cluster: a maintenance that is worked up to, and a warning that our own clock gives."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpcresume.slurm.job_text import parse_time
from tests.slurm.cluster import Cluster
from tests.slurm.test_launch import ROOT, Job, digest, losses

TIMED = Path(__file__).with_name("timed.py")
STEPS = 220


def events(run: Path, attempt: int, *names: str, file: str = "supervisor.jsonl") -> list[dict[str, Any]]:
    path = run / "attempts" / f"{attempt:04d}" / file
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["event"] in names]


@pytest.mark.timeout(240)
def test_a_job_with_time_min_works_until_a_maintenance_saves_before_it_and_goes_on_after_it(
    cluster: Cluster, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    """The maintenance is over early, so that nobody has to wait for its end. Slurm's backfill may give the job no more
    than its least also when nothing stands in the way: then it comes back once or twice more.
    """
    begins = time.time() + 68
    words = [f"StartTime={time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(begins))}", "Duration=2", "Users=root",
             "Nodes=ALL", "Flags=maint,ignore_jobs", "ReservationName=maintenance"]  # fmt: skip
    cluster.command("scontrol", "create", "reservation", *words)
    try:
        options = ("--time=30", "--time-min=1", "--signal=B:USR1@20")
        job = Job(cluster, tmp_path, *options, pause=0.25, launch="--time-limit=30min")
        job.wait_for_step(10)
        first = job.state()
        assert (first["TimeLimit"], first["TimeMin"]) == ("00:01:00", "00:01:00"), "thirty minutes do not fit"
        cluster.wait(lambda: job.state()["Restarts"] == "1", f"a requeue\n{job.text()}", 60)
        cluster.wait(lambda: job.state()["TimeLimit"] == "00:30:00", f"the full limit\n{job.text()}", 10)
        cluster.wait(lambda: time.time() > begins + 2, "the maintenance", 60)
        during = job.state()
        assert (during["JobState"], during["Restarts"]) == ("PENDING", "1"), "no node is to be had"
        assert "State=ACTIVE" in cluster.command("scontrol", "show", "reservation", "maintenance")
    finally:
        cluster.command("scontrol", "delete", "ReservationName=maintenance", check=False)
    ended, causes = job.wait_until_ended(), job.causes()
    assert (ended["JobState"], causes[-1], set(causes[:-1])) == ("COMPLETED", "done", {"walltime"}), job.text()
    assert len(causes) - 1 == int(ended["Restarts"]) == job.text().count("TimeLimit=00:30:00 (") <= 3, job.text()
    assert "TimeLimit=00:30:00 (the full limit again" in job.text()
    saved, stop = events(job.run, 1, "saved", "stop", file="ledger.jsonl")[-2:]
    assert (saved["event"], stop["event"], saved["step"]) == ("saved", "stop", stop["step"]), "nothing is lost"
    assert losses(job.out) == uninterrupted["losses"], job.text()
    assert digest(job.out) == uninterrupted["digest"]


def timed_script(tmp_path: Path, set_up: str, launch: str = "") -> Path:
    script = tmp_path / "job.sh"
    run, python = tmp_path / "run", sys.executable
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 --time=1 --requeue --open-mode=append\n"
        f"cd {ROOT}\n{set_up}\n"
        f"exec {python} -m hpcresume launch --run {run} --mpi srun {launch} -- {python} {TIMED} {run} {STEPS} 0.2 "
        f"{tmp_path / 'final'}\n"
    )
    return script


@pytest.mark.timeout(240)
def test_without_any_signal_of_slurms_the_ranks_are_told_in_time_however_long_the_set_up_took(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The end is that of the allocation, and it began twenty seconds before Python did."""
    alone = [sys.executable, str(TIMED), str(tmp_path / "alone"), str(STEPS), "0", str(tmp_path / "alone-final")]
    subprocess.run(alone, check=True, timeout=60, capture_output=True)
    log, run = tmp_path / "job.log", tmp_path / "run"
    script = timed_script(tmp_path, 'if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then sleep 20; fi')
    job = cluster.submit(script, f"--output={log}")
    cluster.wait(lambda: cluster.job(job)["JobState"] == "RUNNING", "a start", 30)
    first = cluster.job(job)
    start, end = parse_time(first["StartTime"]), parse_time(first["EndTime"])
    assert start is not None
    assert end == start + 60

    cluster.wait(lambda: cluster.job(job)["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT"), "an end", 180)
    text = log.read_text()
    assert cluster.job(job)["JobState"] == "COMPLETED", text
    assert 1 <= int(cluster.job(job)["Restarts"]) <= 3, text
    assert (tmp_path / "final").read_text() == (tmp_path / "alone-final").read_text(), text

    told = events(run, 1, "warning-by-clock")
    assert len(told) == 1, text
    assert not events(run, 1, "warning-received"), "Slurm said nothing before the ranks had left"
    assert told[0]["lead"] - 4 < told[0]["left"] <= told[0]["lead"] <= 15, "at most a quarter of the allocation"
    assert told[0]["at"] == pytest.approx(end - told[0]["left"], abs=0.1)
    assert events(run, 1, "started")[0]["t"] >= start + 20
    deadline = json.loads((run / "attempts/0001/deadline.json").read_text())
    assert (deadline["unix"], deadline["cause"]) == (end, "walltime")
    assert [e["cause"] for e in events(run, 1, "ended")] == ["walltime"], text
    plan = events(run, 1, "plan", file="ledger.jsonl")[0]
    assert plan["plan"] == "save"
    stop = events(run, 1, "stop", file="ledger.jsonl")[0]
    assert stop["generation"].startswith(f"g{stop['step']:012d}"), "nothing is lost"


@pytest.mark.full
@pytest.mark.timeout(240)
def test_an_allocation_that_the_set_up_has_eaten_up_says_so(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    set_up = 'if [ "${SLURM_RESTART_COUNT:-0}" = 1 ]; then sleep 50; fi'
    job = cluster.submit(timed_script(tmp_path, set_up), f"--output={log}")
    cluster.wait(lambda: "it may come to nothing" in (log.read_text() if log.exists() else ""), "its words", 180)
    cluster.command("scancel", job)
    cluster.wait(lambda: cluster.job(job)["JobState"] in ("CANCELLED", "FAILED", "COMPLETED"), "an end", 60)
    found = re.search(r"had (\d+) s left, after (\d+) s of set-up, and .* takes (\d+) s", log.read_text())
    assert found is not None
    left, set_up_took, needed = map(int, found.groups())
    assert set_up_took >= 50
    assert left < needed
