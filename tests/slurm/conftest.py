"""One cluster for all tests of this folder, and the uninterrupted run that every interrupted one is held against."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, root_2411, running_cluster, skip_without_slurm
from tests.support.mpi import mpiexec

STEPS = 160
PROGRAM = Path(__file__).with_name("train.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a real Slurm; `make test-slurm` asks for it by this mark."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of what may differ between versions of Slurm is marked `slurm_versions` and runs on each.

    HPCRESUME_TEST_SLURM=24.11 runs all others on that one too, instead of the installed one.
    """
    if "slurm_name" in metafunc.fixturenames:
        both = any(mark.name == "slurm_versions" for mark in metafunc.definition.iter_markers())
        names = ["installed", "24.11"] if both else [os.environ.get("HPCRESUME_TEST_SLURM", "installed")]
        ids = names if both else [pytest.HIDDEN_PARAM]
        metafunc.parametrize("slurm_name", names, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def slurm_name(request: pytest.FixtureRequest) -> str:
    """Which Slurm: the one that is installed, or the 24.11 in a root of its own."""
    return str(request.param)


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Cluster]]:
    """Starts the cluster of a name when it is first asked for; each has two nodes and lives until the end."""
    running: dict[str, Cluster] = {}
    with contextlib.ExitStack() as stack:

        def start(name: str) -> Cluster:
            if name not in running:
                root = None if name == "installed" else root_2411()
                base = tmp_path_factory.mktemp("slurm") / "c"
                running[name] = stack.enter_context(running_cluster(base, root=root))
            return running[name]

        yield start


@pytest.fixture(scope="session")
def cluster(slurm_name: str, clusters: Callable[[str], Cluster]) -> Cluster:
    """Two nodes, a partition that is preempted and one that preempts."""
    skip_without_slurm()
    return clusters(slurm_name)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Losses by step and the final digest of the same training that nothing disturbed."""
    out = tmp_path_factory.mktemp("uninterrupted")
    done = mpiexec(2, [sys.executable, str(PROGRAM), str(out / "run"), str(STEPS), str(out), "0"])
    assert done.returncode == 0, done.stderr
    return {"losses": losses(out), "digest": digest(out)}


def losses(out: Path) -> dict[int, set[str]]:
    """Every loss (as hexadecimal float) that was ever computed for each step."""
    found: dict[int, set[str]] = {}
    for line in (out / "steps.jsonl").read_text().splitlines():
        fields = json.loads(line)
        found.setdefault(fields["step"], set()).add(fields["loss"])
    return found


def digest(out: Path) -> str:
    """The digest of the final state as rank 0 wrote it."""
    return str(json.loads((out / "final-0.json").read_text())["digest"])
