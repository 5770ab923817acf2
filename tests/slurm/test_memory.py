"""Want of memory on another node than the batch script's: the kernel kills for real, in control groups of Slurm's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.io.paths import RunPaths
from hpcresume.launch.records import past_attempts
from hpcresume.model import Cause
from tests.slurm.cluster import Cluster, root_2411, running_cluster, skip_without_slurm
from tests.slurm.test_causes import evidence
from tests.slurm.test_launch import Job
from tests.support.lacking import cannot

pytestmark = pytest.mark.timeout(240)
PROGRAM = Path(__file__).with_name("hungry.py")
MEMORY = Path("/sys/fs/cgroup/memory")
CGROUPS = (
    "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nConstrainRAMSpace=yes\nConstrainSwapSpace=no\n"
    "ConstrainCores=no\nConstrainDevices=no\nMinRAMSpace=30\n"
)


def skip_where_memory_cannot_be_limited() -> None:
    """No machine of a plain user, or with control groups of version 2 only, can be brought to run this: Slurm's plugin
    for those wants a systemd, which a slurmd without a machine of its own has not. Root with version 1 can.
    """
    if os.geteuid() != 0:
        pytest.skip("control groups of memory can be made by root only")
    if not (MEMORY / "memory.limit_in_bytes").exists():
        pytest.skip(f"no control groups (version 1) of memory in {MEMORY}")
    if not os.access(MEMORY, os.W_OK):
        cannot(f"{MEMORY} cannot be written")


@pytest.fixture(params=["installed", pytest.param("24.11", marks=pytest.mark.full)])
def limiting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes whose slurmds hold jobs to their memory."""
    skip_without_slurm()
    skip_where_memory_cannot_be_limited()
    root = root_2411() if request.param == "24.11" else None
    extra = {"TaskPlugin": "task/cgroup", "SelectTypeParameters": "CR_Core_Memory"}
    groups = MEMORY / f"hpcresume-{os.getpid()}"
    try:
        with running_cluster(tmp_path_factory.mktemp("memory") / "c", root=root, extra=extra) as cluster:
            (Path(cluster.env["SLURM_CONF"]).parent / "cgroup.conf").write_text(CGROUPS)
            for node in cluster.mini.names:
                hold_to_memory(cluster, node, groups / node)
            yield cluster
    finally:
        for group in sorted(groups.rglob("*/"), reverse=True):
            group.rmdir()
        groups.rmdir()


def hold_to_memory(cluster: Cluster, node: str, group: Path) -> None:
    """Let a node's slurmd begin anew, which then reads cgroup.conf, with control groups of its own below `group`."""
    group.mkdir(parents=True)
    cluster.mini.on_node(node, "mount", "--bind", str(group), str(MEMORY))
    cluster.mini.kill_slurmd(node)
    cluster.wait(lambda: (node, None) in [(each.name, each.slurmd) for each in cluster.mini.status().nodes], "its end")
    cluster.start_node(node)


def test_a_rank_that_the_kernel_killed_for_memory_on_another_node_is_told_as_that(
    limiting: Cluster, tmp_path: Path
) -> None:
    job = Job(limiting, tmp_path, "--mem=700M", program=PROGRAM, launch="--pause off")
    ended = job.wait_until_ended()
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), job.text()
    assert [each.cause for each in past_attempts(RunPaths(job.run))] == [Cause.OUT_OF_MEMORY, Cause.DONE], job.text()
    print(evidence(job.run, 1))
    assert "in the job's log" in evidence(job.run, 1)
    assert ("oom" in evidence(job.run, 1)) or "Out Of Memory" in evidence(job.run, 1)
