"""One cluster for all tests of this folder, and the uninterrupted run that every interrupted one is held against."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing_programs, running_cluster
from tests.support.mpi import mpiexec

STEPS = 160
PROGRAM = Path(__file__).with_name("train.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a real Slurm; `make test-slurm` asks for it by this mark."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, a partition that is preempted and one that preempts."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"no real Slurm here: {', '.join(missing)} missing; `make test-slurm` installs them where it may")
    with running_cluster(tmp_path_factory.mktemp("slurm") / "c") as running:
        yield running


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
