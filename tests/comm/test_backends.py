"""What is particular to a backend: whose communicator, whose group, whose traffic, and how a job ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.mpi import mpiexec
from tests.support.processes import run_together, torch_variables

DRIVER = str(Path(__file__).with_name("scenario_driver.py"))


def argv(scenario: str, directory: Path) -> list[str]:
    return [sys.executable, DRIVER, scenario, str(directory)]


def results(directory: Path, size: int) -> list[Any]:
    return [json.loads((directory / str(rank)).read_text()) for rank in range(size)]


def under_mpi(scenario: str, directory: Path, size: int, env: Mapping[str, str] | None = None) -> list[Any]:
    done = mpiexec(size, argv(scenario, directory), env=env)
    assert done.returncode == 0, done.stderr
    return results(directory, size)


def under_torch(scenario: str, directory: Path, size: int) -> list[Any]:
    for done in run_together(argv(scenario, directory), torch_variables(size)):
        assert done.returncode == 0, done.stderr
    return results(directory, size)


@pytest.mark.mpi
@pytest.mark.parametrize("size", [1, 2])
def test_under_mpiexec_auto_is_mpi(tmp_path, size):
    assert under_mpi("auto", tmp_path, size) == [["mpi", size]] * size


@pytest.mark.mpi
def test_mpiexec_inside_a_slurm_step_is_not_measured_by_the_number_of_its_daemons(tmp_path):
    daemons = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "3"}
    assert under_mpi("auto", tmp_path, 2, daemons) == [["mpi", 2]] * 2


@pytest.mark.mpi
def test_emulated_nodes_count_as_nodes_under_mpi(tmp_path):
    assert under_mpi("nodes", tmp_path, 4) == [[0, 0, 1, 1]] * 4


def test_emulated_nodes_count_as_nodes_under_torch(tmp_path):
    assert under_torch("nodes", tmp_path, 3) == [[0, 0, 1]] * 3


@pytest.mark.mpi
def test_a_message_that_is_too_large_for_mpi_is_refused_on_every_rank(tmp_path):
    assert under_mpi("too_large", tmp_path, 2) == [["RanksError", "RanksError"]] * 2


def test_a_message_that_is_too_large_for_torch_is_refused_on_every_rank(tmp_path):
    assert under_torch("too_large", tmp_path, 2) == [["RanksError", "RanksError"]] * 2


@pytest.mark.mpi
def test_messages_of_the_user_never_meet_ours(tmp_path):
    assert under_mpi("users_mpi_traffic", tmp_path, 3) == [102, 100, 101]


@pytest.mark.mpi
def test_a_communicator_of_the_user_is_duplicated_and_stays(tmp_path):
    assert under_mpi("users_communicator", tmp_path, 4) == [["mpi", 2, True, "RanksError"]] * 4


def test_a_torch_group_of_the_user_is_used_and_stays(tmp_path):
    assert under_torch("users_torch_group", tmp_path, 2) == [["torch", 2, 3, True]] * 2


def test_a_torch_group_of_our_own_is_destroyed_on_close(tmp_path):
    assert under_torch("our_torch_group", tmp_path, 2) == [[True, False]] * 2


@pytest.mark.parametrize("whose", ["lent", "own"])
def test_a_closed_group_has_no_threads_left_that_could_abort_the_process_at_its_end(tmp_path, whose):
    command = [*argv("no_thread_of_gloo_outlives_our_group", tmp_path), whose]
    for done in run_together(command, torch_variables(2)):
        assert done.returncode == 0, done.stderr
    assert results(tmp_path, 2) == [[True, True, "RanksError"]] * 2


@pytest.mark.slow
def test_under_torchrun_auto_is_torch(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    (done,) = run_together([*launcher, "--standalone", *argv("auto", tmp_path)[1:]], [{}])
    assert done.returncode == 0, done.stderr
    assert results(tmp_path, 2) == [["torch", 2]] * 2


@pytest.mark.mpi
def test_an_abort_under_mpi_ends_every_rank_with_its_code(tmp_path):
    began = time.monotonic()
    done = mpiexec(4, argv("abort_on_rank_1", tmp_path), timeout=30)
    assert done.returncode == 9, done.stderr
    assert len(list(tmp_path.glob("aborting-*"))) >= 1
    assert not [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert time.monotonic() - began < 20


def test_an_abort_under_torch_ends_the_rank_and_fails_the_waiting_peer(tmp_path):
    waiting, aborted = run_together(argv("abort_on_rank_1", tmp_path), torch_variables(2), timeout=30)
    assert aborted.returncode == 9
    assert "rank 1 aborts the job with code 9" in aborted.stderr
    assert waiting.returncode == 0
    assert json.loads((tmp_path / "0").read_text()) == "PeerFailureError"


def test_a_torch_peer_that_never_comes_is_an_error_after_gloos_own_timeout(tmp_path):
    assert under_torch("torch_peer_is_late", tmp_path, 2) == ["RanksMissingError", None]


@pytest.mark.alone
@pytest.mark.mpi
def test_a_vote_of_two_ranks_costs_microseconds(tmp_path):
    seconds = under_mpi("vote_cost", tmp_path, 2)
    print(f"a vote of 2 ranks under MPI costs {max(seconds) * 1e6:.1f} µs")
    assert max(seconds) < 1e-3


@pytest.mark.alone
def test_a_vote_of_two_ranks_costs_less_than_a_millisecond_under_torch(tmp_path):
    seconds = under_torch("vote_cost", tmp_path, 2)
    print(f"a vote of 2 ranks under gloo costs {max(seconds) * 1e6:.1f} µs")
    assert max(seconds) < 5e-3


@pytest.mark.mpi
def test_the_helper_kills_what_runs_too_long(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        mpiexec(2, ["sh", "-c", f"echo $$ > {tmp_path}/$OMPI_COMM_WORLD_RANK; exec sleep 60"], timeout=3)
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
