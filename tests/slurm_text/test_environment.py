from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.slurm.environment import SlurmEnvironment

BATCH = {
    "SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "a b|c", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "0",
    "SLURM_JOB_NODELIST": "n[1-2]", "SLURMD_NODENAME": "n1", "SLURM_SUBMIT_DIR": "/home/ada",
    "SLURM_JOB_START_TIME": "1715000000", "SLURM_JOB_END_TIME": "1715003600",
}  # fmt: skip


def test_outside_slurm_everything_is_absent():
    assert SlurmEnvironment.from_environ({"PATH": "/bin"}) == SlurmEnvironment()


def test_the_batch_script_is_in_the_job_and_in_no_step():
    slurm = SlurmEnvironment.from_environ(BATCH)
    assert (slurm.job_id, slurm.ntasks, slurm.nnodes, slurm.restart_count) == ("12", 4, 2, 0)
    assert (slurm.submit_dir, slurm.end_time) == (Path("/home/ada"), 1715003600)
    assert (slurm.in_job, slurm.in_step) == (True, False)


def test_a_task_knows_its_place():
    slurm = SlurmEnvironment.from_environ({**BATCH, "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"})
    assert (slurm.in_step, slurm.procid, slurm.localid) == (True, 3, 1)


def test_the_restart_count_is_unset_on_the_first_start():
    assert SlurmEnvironment.from_environ({**BATCH, "SLURM_RESTART_COUNT": "2"}).restart_count == 2


def test_a_task_of_an_array_is_named_so_that_no_other_task_is_hit():
    array = {**BATCH, "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}
    assert SlurmEnvironment.from_environ(array).job_id == "10_3"


def test_of_a_heterogeneous_job_the_leader_is_named():
    assert SlurmEnvironment.from_environ({**BATCH, "SLURM_JOB_ID": "13", "SLURM_HET_JOB_ID": "12"}).job_id == "12"


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "12; rm -rf /", "9" * 5000, "٣"])
def test_a_number_that_is_none_counts_as_absent(text):
    assert SlurmEnvironment.from_environ({"SLURM_JOB_ID": text, "SLURM_NTASKS": text}) == SlurmEnvironment()


@given(st.dictionaries(st.sampled_from([*BATCH, "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"]), st.text(max_size=30)))
def test_no_environment_raises(environ):
    SlurmEnvironment.from_environ(environ)
