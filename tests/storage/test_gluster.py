"""Training on a distributed filesystem of four bricks, through a mount of its own on each node."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpcresume as hr
from tests.storage.jobs import STEPS, Job, Site, assert_same


@pytest.mark.timeout(200)
@pytest.mark.parametrize("path", ["posix", "mpiio"])
def test_a_preempted_training_on_a_distributed_filesystem_ends_as_an_uninterrupted_one_on_a_local_disk(
    site: Site, uninterrupted: dict[str, object], tmp_path: Path, path: str
) -> None:
    job = Job(site, tmp_path, "--write-path", path, "--every", "15 steps", "--pause", "0.1")
    job.wait_for_step(20)
    job.preempt()
    job.wait_until_ended()
    assert_same(job, uninterrupted)
    assert [job.cause(1), job.cause(2)] == ["preempted", "done"]
    saved = [event for attempt in (1, 2) for event in job.events(attempt, "saved")]
    assert {event["write_path"] for event in saved} == {path}
    for node in site.cluster.mini.names:  # each through a mount of its own, with its own caches
        run = job.seen(node)
        found = hr.Generations(run)
        newest = found.newest()
        assert newest is not None and newest.step == STEPS
        assert all(found.verify(each).ok for each in found.list())
