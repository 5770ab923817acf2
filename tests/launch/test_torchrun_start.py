"""What `hpcresume launch --mpi torchrun` would start: agents, addresses, ports. Nothing is started here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hpcresume.errors import ConfigError
from hpcresume.integrations import torchrun_agent
from hpcresume.io import ports
from hpcresume.launch import torchrun
from hpcresume.launch.starter import plan_start
from hpcresume.slurm.environment import SlurmEnvironment
from tests.support.launching import hpcresume
from tests.support.mpi import child_environment

JOB = SlurmEnvironment(job_id="12", ntasks=8, nnodes=4, node_name="n0", restart_count=2)
SHIM = ("env", "--block-signal=USR1", "--block-signal=USR2")


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(torchrun.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    return monkeypatch


def plan(slurm, *, command=("train.py", "--x"), workers=None, options=(), ranks=None, kind="torchrun"):
    return plan_start(command, ranks=ranks, starter=kind, options=options, slurm=slurm, shared={"A": "1"},
                      workers=workers, probe=lambda arguments: "").arguments  # fmt: skip


@pytest.mark.usefixtures("machine")
def test_a_job_of_several_nodes_gets_one_agent_a_node_through_srun():
    found = plan(JOB, workers=3, options=["--label"])
    assert found[:7] == (
        "srun", "--kill-on-bad-exit=1", "--mpi=none", "--nodes=4", "--ntasks=4", "--ntasks-per-node=1", "--label",
    )  # fmt: skip
    assert found[7:10] == SHIM
    assert found[10:14] == (sys.executable, str(torchrun.AGENT), "--nodes=4", "--workers=3")
    assert found[16] == "--id=12-2"
    assert found[17:] == ("--", sys.executable, "-u", "train.py", "--x")


def test_the_cores_of_the_job_reach_the_agents(machine):
    """srun has not read sbatch's --cpus-per-task since 22.05."""
    machine.setenv("SLURM_CPUS_PER_TASK", "16")
    assert "--cpus-per-task=16" in plan(JOB)


def test_one_worker_for_each_gpu_else_one(machine):
    assert "--workers=1" in plan(JOB)
    machine.setenv("SLURM_GPUS_ON_NODE", "8")
    assert "--workers=8" in plan(JOB)
    assert "--workers=2" in plan(JOB, workers=2)
    machine.setenv("SLURM_GPUS_ON_NODE", "many")
    assert "--workers=1" in plan(JOB)


def test_outside_slurm_the_agent_is_started_right_here():
    found = plan(SlurmEnvironment(), workers=2, command=("python", "-m", "train"))
    assert found[:3] == SHIM
    assert "--address=127.0.0.1" in found
    assert found[-4:] == ("--", "python", "-m", "train")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"ranks": 4}, "--workers-per-node"),
        ({"kind": "mpiexec", "workers": 2}, "only torchrun"),
        ({"slurm": SlurmEnvironment(), "options": ["--label"]}, "no srun here"),
        ({"slurm": SlurmEnvironment(nnodes=2)}, "several nodes need srun"),
    ],
)
def test_what_does_not_go_together_is_refused(more, says, monkeypatch):
    monkeypatch.setattr(torchrun.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=says):
        plan(**{"slurm": SlurmEnvironment(), **more})


def test_each_job_and_restart_has_a_port_of_its_own_that_nobody_listens_on():
    first = torchrun.free_port(JOB)
    assert ports.FIRST_PORT <= first < ports.FIRST_PORT + ports.PORTS <= 32768
    with socket.socket() as taken:
        taken.bind(("", first))
        taken.listen()
        assert torchrun.free_port(JOB) != first
    assert torchrun.free_port(JOB) == first
    assert torchrun.free_port(SlurmEnvironment(job_id="12", restart_count=3)) != first
    assert torchrun.free_port(SlurmEnvironment(job_id="12_3", restart_count=0)) > 0


def test_when_no_port_is_free_it_says_so(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(ConfigError, match="none of 200 ports"):
        torchrun.free_port(JOB)


def test_a_name_that_leads_elsewhere_is_not_where_the_agents_meet(monkeypatch):
    leads = {"n0": "203.0.113.7", socket.gethostname(): "127.0.0.1"}

    def resolve(name, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (leads[name], 0))]

    monkeypatch.setattr(torchrun.socket, "getaddrinfo", resolve)
    assert torchrun.meeting_address(JOB) == socket.gethostname()
    leads["n0"] = "127.0.0.1"
    assert torchrun.meeting_address(JOB) == "n0"


@pytest.fixture
def nameless(monkeypatch):
    """A machine none of whose names leads anywhere, as in a job of nodes that are in no DNS."""
    known = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "203.0.113.7": "203.0.113.7"}

    def resolve(name, *_, **__):
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (known[name], 0))]

    monkeypatch.setattr(torchrun.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(torchrun.socket, "gethostname", lambda: "localhost")
    monkeypatch.setattr(torchrun.socket, "getfqdn", lambda: "localhost.localdomain")
    return monkeypatch


def test_without_a_name_the_agents_meet_where_slurm_itself_finds_the_node(nameless):
    nameless.setattr(torchrun, "node_address", lambda node: {"n0": "127.0.0.1"}[node])
    assert torchrun.meeting_address(JOB) == "127.0.0.1"


@pytest.mark.parametrize("address", [None, "203.0.113.7", "not-known"])
def test_every_node_is_never_sent_to_itself_it_is_an_error_that_says_what_was_tried(nameless, address):
    nameless.setattr(torchrun, "node_address", lambda node: address)
    with pytest.raises(ConfigError, match="where this one is: none of n0, localhost") as caught:
        torchrun.meeting_address(JOB)
    assert "/etc/hosts" in str(caught.value.hint)


def test_the_agent_takes_its_node_from_slurm_and_the_first_failure_counts():
    options = SimpleNamespace(nodes=4, workers=2, address="n0", port=15001, id="12-0", command=["--", "prog", "a"])
    words = torchrun_agent.agent_arguments(options, 3, "/logs")
    assert {"--node-rank=3", "--nnodes=4", "--nproc-per-node=2", "--master-addr=n0", "--max-restarts=0"} <= set(words)
    assert words[-2:] == ["prog", "a"]
    failures = {0: SimpleNamespace(exitcode=-15, timestamp=9), 1: SimpleNamespace(exitcode=-9, timestamp=5)}
    assert torchrun_agent.exit_code(failures) == 128 + signal.SIGKILL
    assert torchrun_agent.exit_code({0: SimpleNamespace(exitcode=77, timestamp=1)}) == 77


def test_a_dry_run_shows_the_agent_and_starts_none(tmp_path):
    words = ("--mpi", "torchrun", "--workers-per-node", "2", "--dry-run", "--json", "--", "train.py")
    environ = {k: v for k, v in child_environment().items() if k != "SLURM_JOB_ID"}
    done = subprocess.run(hpcresume("launch", *words), env=environ, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["kind"] == "torchrun"
    assert f"{os.path.basename(torchrun.AGENT)}" in done.stdout
    assert facts["arguments"][-3:] == [sys.executable, "-u", "train.py"]
