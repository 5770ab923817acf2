"""A chain as it is watched: what is told, and when nothing more is expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcresume.config.job import read_job
from hpcresume.ops.chain_record import chain_of_stage, read_chain, stages_at
from hpcresume.ops.chain_watching import ChainWatcher
from hpcresume.ops.overview import find_runs
from hpcresume.slurm.queue import QueuedJob
from hpcresume.submit.stages import plan_chain, written_stages

JOB = """\
name: c
run: RUN
stages:
  zero: {command: x}
  first: {after: zero, command: x}
  also: {command: x}
"""


class Watched:
    """Jobs 1, 2 and 3 are the stages zero, also and first of a chain; the queue is what a test says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        job = read_job(JOB.replace("RUN", str(root)))
        plan = plan_chain(root, job.stages)
        (root / "submit").mkdir(parents=True)
        (root / "submit" / "chain.json").write_text(json.dumps({**written_stages(plan), "directory": "/"}))
        self.names = [each.name for each in job.stages]
        for number, name in enumerate(self.names, 1):
            (root / name / "submit").mkdir(parents=True)
            facts = {"job_id": str(number), "stage": name, "submitted_at": 1.0, "directory": "/"}
            (root / name / "submit" / "job.json").write_text(json.dumps(facts))
        self.queue: dict[str, QueuedJob] = {}
        self.now = 0.0
        self.asked = 0
        self.watcher = ChainWatcher(str(root), 30.0, ask=self.ask, clock=lambda: self.now)

    def ask(self, job_ids) -> dict[str, QueuedJob]:
        self.asked += 1
        return {each: self.queue[each] for each in job_ids if each in self.queue}

    def shows(self, **jobs: str) -> None:
        for name, text in jobs.items():
            state, _, reason = text.partition(" ")
            number = str(self.names.index(name) + 1)
            self.queue[number] = QueuedJob(number, state, reason)

    def done(self, *names: str) -> None:
        for name in names:
            (self.root / name / "DONE").write_text("{}")

    def looks(self, seconds: float) -> tuple[dict[str, str], bool]:
        """After so many seconds: the stages that have changed, and whether it is over."""
        self.now += seconds
        look = self.watcher.look()
        return {row.seen.root.name: row.state.state for row in look.changed}, look.over


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "c")


def test_its_runs_are_found_in_their_order_whichever_way_they_are_asked_for(watched):
    runs = [watched.root / name for name in watched.names]
    assert watched.names == ["zero", "first", "also"]
    assert find_runs([watched.root]) == find_runs([watched.root.parent]) == stages_at(watched.root) == runs
    assert chain_of_stage(runs[1]).after("first") == ("zero",)
    assert chain_of_stage(watched.root) is None
    assert read_chain(runs[0]) is None


def test_each_change_is_told_once_and_all_done_is_the_end(watched):
    watched.shows(zero="RUNNING", first="PENDING Dependency", also="PENDING Priority")
    assert watched.looks(0) == ({"zero": "running", "first": "pending", "also": "pending"}, False)
    assert watched.looks(1) == ({}, False)
    watched.done("zero", "also")
    watched.shows(first="RUNNING")
    assert watched.looks(1) == ({"zero": "done", "also": "done"}, False)
    assert watched.looks(4) == ({"first": "running"}, False)
    assert watched.asked == 2, "Slurm is asked again when a stage has ended, and not at each look"
    watched.done("first")
    assert watched.looks(1)[1]
    assert watched.watcher.look().done


def test_a_stage_that_failed_ends_it_once_slurm_was_asked_again_and_nothing_else_moves(watched):
    watched.shows(zero="FAILED", first="PENDING DependencyNeverSatisfied", also="RUNNING")
    assert watched.looks(0) == ({"zero": "ended", "first": "held", "also": "running"}, False)
    for _ in range(5):
        assert not watched.looks(40)[1], "another branch is still at work"
    watched.done("also")
    over = [watched.looks(4)[1] for _ in range(4)]
    assert over[0] is False
    assert over[-1] is True


def test_a_stage_that_is_between_two_lives_does_not_end_it(watched):
    watched.done("zero", "also")
    watched.shows(first="FAILED")
    assert not watched.looks(0)[1]
    watched.shows(first="PENDING BeginTime")
    assert not any(watched.looks(4)[1] for _ in range(5))
