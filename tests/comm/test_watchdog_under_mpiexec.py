"""The watchdog where it matters: real processes that sleep, are stopped, or die before a barrier."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.mpi import mpi_command, mpi_environment, mpiexec

pytestmark = pytest.mark.mpi

DRIVER = str(Path(__file__).with_name("watchdog_driver.py"))
TIMEOUT = 2.0
BOUND = TIMEOUT + 28.0
"""Seconds for start-up on a busy machine, the wait itself, and mpiexec's clearing up."""


def run(size: int, how: str, directory: Path, *absent: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, DRIVER, how, str(directory), str(TIMEOUT), *map(str, absent)]
    done = mpiexec(size, argv, timeout=BOUND)
    started = sorted(path.name for path in directory.glob("started-*"))
    assert started == [f"started-{rank}" for rank in range(size)], "the fault did not fire: a rank never started"
    return done


def passed(directory: Path) -> int:
    return len(list(directory.glob("passed-*")))


@pytest.mark.parametrize("how", ["sleep", "stop"])
def test_of_two_ranks_the_one_that_never_arrives_is_named(tmp_path, how):
    done = run(2, how, tmp_path, 1)
    assert done.returncode == 71, done.stderr
    assert "hpcresume: rank 0: rank 1 has not reached 'save step 40' after 2 s" in done.stderr
    assert passed(tmp_path) == 0


@pytest.mark.parametrize("how", ["sleep", "stop"])
def test_of_four_ranks_both_that_never_arrive_are_named(tmp_path, how):
    done = run(4, how, tmp_path, 0, 2)
    assert done.returncode == 71, done.stderr
    assert "ranks 0, 2 have not reached 'save step 40' after 2 s" in done.stderr
    assert passed(tmp_path) == 0


def test_a_rank_that_is_killed_ends_the_job_in_bounded_time(tmp_path):
    done = run(4, "kill", tmp_path, 1)
    assert done.returncode != 0
    assert passed(tmp_path) == 0


def test_a_rank_that_comes_within_the_timeout_harms_nobody(tmp_path):
    done = run(4, "late", tmp_path, 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert passed(tmp_path) == 4


def test_ranks_that_are_all_suspended_for_longer_than_the_timeout_go_on(tmp_path):
    """As `scontrol suspend` and gang scheduling do: nobody was late, the whole job stood still."""
    argv = [sys.executable, DRIVER, "late", str(tmp_path), str(TIMEOUT), "1"]
    job = subprocess.Popen(
        mpi_command(2, argv), env=mpi_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while len(list(tmp_path.glob("started-*"))) < 2:
            assert job.poll() is None
            time.sleep(0.01)
        ranks = psutil.Process(job.pid).children(recursive=True)
        for rank in ranks:
            rank.suspend()
        time.sleep(1.5 * TIMEOUT)
        assert {rank.status() for rank in ranks} == {psutil.STATUS_STOPPED}
        for rank in ranks:
            rank.resume()
        _, complaints = job.communicate(timeout=BOUND)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert (job.returncode, complaints) == (0, "")
    assert passed(tmp_path) == 2
