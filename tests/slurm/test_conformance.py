"""A real Slurm does what the emulated cluster is tested for: the same cases, so that neither can drift."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulate import conformance
from tests.emulate.conformance import ANSWER_CASES, EXIT_CASES, SIGNAL_CASES
from tests.emulate.lives import LIFE_CASES
from tests.slurm.cluster import Cluster
from tests.support.sampling import sampled

pytestmark = pytest.mark.timeout(300)


class RealBench:
    """The real cluster behind the cases' protocol."""

    first, second = "n1", "n2"
    patience = 120.0
    limit, lead = "1", "20"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.version = ".".join(self.command("sinfo", "--version").stdout.split()[-1].split(".")[:2])
        self._down: list[str] = []
        if "PartitionName=short " not in self.command("scontrol", "show", "partition", "-o").stdout:
            self.command("scontrol", "create", "PartitionName=short", "Nodes=ALL", "MaxTime=2", "State=UP")

    def command(
        self, *words: str, check: bool = True, stdin: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        tools = str(Path(sys.executable).parent)
        env = {**self.cluster.env, "PATH": f"{tools}{os.pathsep}{self.cluster.env['PATH']}",
               "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1",
               "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip
        return subprocess.run(
            words, env=env, check=check, capture_output=True, text=True, input=stdin, cwd=cwd, timeout=200
        )

    def kill_node(self, name: str) -> None:
        self.cluster.kill_node(name)
        self._down.append(name)

    def heal(self) -> None:
        for name in self._down:
            self.cluster.start_node(name)
            self.command("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
        self._down.clear()


@pytest.fixture(scope="module")
def bench(cluster: Cluster) -> RealBench:
    return RealBench(cluster)


SAMPLED = frozenset({"preempt_with_b", "requeue", "signal_full"})
"""Of the cases that take half a minute each, those that CI runs; `make test-slurm-full` runs all."""
BY_VERSION = [case for case in SIGNAL_CASES if "; " in case.outcome]
"""Those that say themselves that versions of Slurm differ. CI runs them all, on each version that is there."""
ALIKE = [case for case in SIGNAL_CASES if case not in BY_VERSION]


@pytest.mark.parametrize("case", sampled(ALIKE, lambda case: case.name in SAMPLED), ids=lambda case: case.name)
def test_signals_reach_whom_the_emulator_sends_them_to(bench: RealBench, tmp_path: Path, case):
    case.check(bench, tmp_path)


@pytest.mark.slurm_versions
@pytest.mark.parametrize("case", BY_VERSION, ids=lambda case: case.name)
def test_what_differs_between_versions_differs_in_the_emulator_alike(
    bench: RealBench, tmp_path: Path, case, slurm_name: str
):
    """The emulator knows two versions, "22.05" and "24.11": a case has an outcome for each of them."""
    if slurm_name == "24.11":
        assert bench.version == "24.11", "the root holds another Slurm than its name says"
    print(f"{case.name} on Slurm {bench.version}: {case.outcome_of(bench.version)}")
    case.check(bench, tmp_path)


@pytest.mark.parametrize("case", EXIT_CASES, ids=lambda case: case.command)
def test_srun_exits_as_the_emulated_one(bench: RealBench, tmp_path: Path, case):
    conformance.check_exit(case, bench, tmp_path)


@pytest.mark.parametrize("case", ANSWER_CASES, ids=lambda case: " ".join(case.words))
def test_commands_answer_as_the_emulated_ones(bench: RealBench, tmp_path: Path, case):
    conformance.check_answer(case, bench, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("case", LIFE_CASES, ids=lambda case: case.check.__name__)
def test_jobs_live_as_in_the_emulated_cluster(bench: RealBench, tmp_path: Path, case):
    case.check(bench, tmp_path)
