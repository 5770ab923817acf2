"""The emulated cluster does what the cases of `conformance` say; a real Slurm is asked the same in tests/slurm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.emulate.settings import default_partitions, parse_partition
from tests.emulate import conformance
from tests.emulate.conformance import ANSWER_CASES, EXIT_CASES, SIGNAL_CASES
from tests.emulate.lives import LIFE_CASES
from tests.support.sampling import sampled

pytestmark = pytest.mark.timeout(60)


class EmulatedBench:
    """The emulated cluster behind the cases' protocol."""

    first, second = "n0", "n1"
    patience = 10.0
    limit, lead = "0:03", "1"

    def __init__(self, cluster: EmulatedCluster) -> None:
        self.cluster = cluster
        self.version = cluster.settings.slurm

    def command(
        self, *words: str, check: bool = True, stdin: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=self.cluster.environ, check=check, capture_output=True, text=True, input=stdin, cwd=cwd,
            timeout=50,
        )  # fmt: skip

    def kill_node(self, name: str) -> None:
        self.cluster.kill_node(name)

    def heal(self) -> None:
        """Lost nodes come back by themselves."""


def bench(slurm: str) -> Iterator[EmulatedBench]:
    settings = {"kill_wait": 1.0, "requeue_delay": 0.2, "node_down": 0.5, "slurm": slurm, "mpi": "none"}
    partitions = (*default_partitions(grace=3.0), parse_partition("short,limit=120s"))
    with EmulatedCluster(nodes=2, cpus=2, partitions=partitions, **settings) as cluster:
        yield EmulatedBench(cluster)


@pytest.fixture(scope="module")
def new() -> Iterator[EmulatedBench]:
    yield from bench("24.11")


@pytest.fixture(scope="module")
def old() -> Iterator[EmulatedBench]:
    yield from bench("22.05")


@pytest.mark.parametrize("case", SIGNAL_CASES, ids=lambda case: case.name)
def test_signals_reach_whom_they_reach_on_a_cluster(new: EmulatedBench, tmp_path: Path, case):
    case.check(new, tmp_path)


def test_before_24_05_a_job_that_exits_within_its_grace_is_over(old: EmulatedBench, tmp_path: Path):
    next(case for case in SIGNAL_CASES if case.name == "exit_in_grace").check(old, tmp_path)


@pytest.mark.parametrize("case", EXIT_CASES, ids=lambda case: case.command)
def test_srun_exits_as_on_a_cluster(new: EmulatedBench, tmp_path: Path, case):
    conformance.check_exit(case, new, tmp_path)


@pytest.mark.parametrize("case", ANSWER_CASES, ids=lambda case: " ".join(case.words))
def test_commands_answer_as_on_a_cluster(new: EmulatedBench, tmp_path: Path, case):
    conformance.check_answer(case, new, tmp_path)


SLOWER = frozenset({"singleton", "changes", "own_requeue"})
"""Lives that only `make test-full` runs."""


@pytest.mark.parametrize(
    "case", sampled(LIFE_CASES, lambda case: case.check.__name__ not in SLOWER), ids=lambda case: case.check.__name__
)
def test_jobs_live_as_on_a_cluster(new: EmulatedBench, tmp_path: Path, case):
    case.check(new, tmp_path)
