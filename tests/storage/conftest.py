"""A small Slurm whose nodes mount a GlusterFS, and the uninterrupted run that every interrupted one is held against."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import running_cluster, skip_without_slurm
from tests.storage.gluster import Gluster, skip_without_gluster
from tests.storage.jobs import PROGRAM, STEPS, Site
from tests.storage.room import Room
from tests.support.mpi import mpiexec


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and a filesystem that it mounts; `make test-storage` asks for it by this mark."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.storage)


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two nodes, each with a FUSE mount of its own of one volume on four bricks."""
    skip_without_slurm()
    skip_without_gluster()
    base = tmp_path_factory.mktemp("site")
    with Room() as room:
        gluster = Gluster(base / "g", room)
        with running_cluster(base / "c", nodes=2) as cluster:
            for node in cluster.mini.names:
                gluster.mount_on(cluster, node)
            yield Site(cluster, gluster)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The same, whole before the test and after it."""
    yield whole_site
    whole_site.clean()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Losses by step and the final digest of the same training on a local disk, which nothing disturbed."""
    out = tmp_path_factory.mktemp("uninterrupted")
    done = mpiexec(4, [sys.executable, str(PROGRAM), str(out / "run"), str(STEPS), str(out)])
    assert done.returncode == 0, done.stderr
    losses: dict[int, set[str]] = {}
    for line in (out / "steps.jsonl").read_text().splitlines():
        losses.setdefault(json.loads(line)["step"], set()).add(json.loads(line)["loss"])
    return {"losses": losses, "digest": json.loads((out / "final-0.json").read_text())["digest"]}
