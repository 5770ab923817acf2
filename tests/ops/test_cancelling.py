"""Cancelling after a save: what is waited for while the run's files change between two looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcresume.errors import SaveError
from hpcresume.io.durable import append_line
from hpcresume.io.paths import RunPaths
from hpcresume.ops import cancelling
from hpcresume.ops.cancelling import Cancellation
from hpcresume.slurm.orders import Order, cancel, warn
from hpcresume.slurm.queue import QueuedJob
from tests.support.many_runs import make_run

WARNED = warn("7", "USR1", batch=True)


class Scene:
    """A run of job 7 that a cancel with --save meets; `answers` are what happens after each order, one by one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = RunPaths(make_run(folder / "run", 1, job=7))
        self.given: list[Order] = []
        self.said: list[str] = []
        self.answers: list[Callable[[], None]] = []
        monkeypatch.setattr(cancelling, "give", self._give)
        monkeypatch.setattr(cancelling, "ask_queue", lambda _ids: {"7": QueuedJob("7", "CANCELLED")})
        monkeypatch.setattr(cancelling, "LOOK_EVERY", 0.0)

    def _give(self, order: Order) -> None:
        self.given.append(order)
        if self.answers:
            self.answers.pop(0)()

    def decides(self, attempt: int) -> None:
        """As a session does after its commit."""
        text = json.dumps({"decision": "come-back", "reason": "warned", "generation": None})
        self.run.attempt(attempt).decision.write_text(text)

    def crashes(self, attempt: int) -> None:
        """The supervisor alone decides: no session said anything."""
        append_line(self.run.attempt(attempt).supervisor, {"t": 0.0, "event": "decision", "decision": "come-back"})

    def begins_anew(self) -> None:
        """The job starts again at once, before anybody has looked."""
        first, second = self.run.attempt(1), self.run.attempt(2)
        second.root.mkdir()
        for name in ("claim", "start", "ledger", "progress"):
            getattr(second, name).write_bytes(getattr(first, name).read_bytes())

    def cancel(self, seconds: float = 30.0) -> None:
        plan = Cancellation(self.run, "7", QueuedJob("7", "RUNNING"), "running", (WARNED, cancel("7")), saves=True)
        plan.carry_out(self.said.append, save_seconds=seconds)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    return Scene(tmp_path, monkeypatch)


def test_a_run_that_has_saved_and_begun_anew_between_two_looks_has_saved(scene):
    def saves_and_begins_anew() -> None:
        scene.decides(1)
        scene.begins_anew()

    scene.answers = [saves_and_begins_anew]
    scene.cancel()
    assert scene.given == [WARNED, cancel("7")]
    assert "job 7 is cancelled" in scene.said


def test_a_new_start_after_one_that_was_lost_before_it_could_save_is_warned_too(scene):
    def crashes_and_begins_anew() -> None:
        scene.crashes(1)
        scene.begins_anew()

    scene.answers = [crashes_and_begins_anew, lambda: scene.decides(2)]
    scene.cancel()
    assert scene.given == [WARNED, WARNED, cancel("7")]
    assert any("warned again" in line for line in scene.said)


def test_a_run_that_never_decides_is_not_cancelled(scene):
    with pytest.raises(SaveError, match="the job is not cancelled"):
        scene.cancel(seconds=0.0)
    assert scene.given == [WARNED]


def test_the_job_that_was_submitted_to_go_on_instead_is_cancelled_too(scene):
    """Where Slurm requeues nothing, the supervisor submits another job after the commit, which no plan could know."""

    def saves_and_submits() -> None:
        scene.decides(1)
        append_line(scene.run.attempt(1).supervisor, {"t": 1.0, "event": "resubmitted", "job_id": "8"})

    scene.answers = [saves_and_submits]
    scene.cancel()
    assert scene.given == [WARNED, cancel("8"), cancel("7")]
