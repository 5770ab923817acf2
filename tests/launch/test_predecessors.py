"""A stage that starts before those that it waits for are done: what its supervisor does, and tells Slurm to do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcresume.io.paths import RunPaths
from hpcresume.launch.gate import admit
from hpcresume.launch.hands import Hands
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.predecessors import made_from, mark_program_done
from hpcresume.model import EXIT_HOLD, Cause
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.environment import SlurmEnvironment
from tests.slurm_text.records import record


class Stage:
    """Job 20 is the stage `train`; `prepare` comes before it. Slurm's commands are answered and kept."""

    def __init__(self, root: Path) -> None:
        self.before, self.run = RunPaths(root / "prepare"), RunPaths(root / "train")
        self.before.root.mkdir(parents=True)
        self.run.root.mkdir()
        self.queue: dict[str, str] = {}
        self.refused: set[str] = set()
        self.calls: list[str] = []
        self.now = 0.0
        self.at: dict[float, Any] = {}
        self.silent_until = 0.0
        self.restarts = 0

    def execute(self, words: Sequence[str], _timeout: float) -> Answer:
        if self.silent_until > self.now:
            return Answer(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
        if "show" in words:
            return Answer(0, record(job_id="20", restarts=str(self.restarts)), "")
        if words[0] != "squeue":
            self.calls.append(" ".join(words))
            return Answer(1, "", "refused") if words[1] in self.refused else Answer(0, "", "")
        form = next(word for word in words if word.startswith("--format=")).partition("=")[2]
        if form == "%k":
            return Answer(0, "mine\n", "")
        mark = re.match("~[0-9a-f]+~", form)
        assert mark is not None
        rows = [
            mark[0].join(["", job, state, "None", "N/A", "N/A", "", "low", ""]) for job, state in self.queue.items()
        ]
        return Answer(0, "".join(f"{row}\n" for row in rows), "") if "%E" not in form else Answer(0, "", "")

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [each for each in self.at if each <= self.now]:
            self.at.pop(moment)()

    def begins(self, restarts: int = 0, job: str | None = "20") -> Any:
        environ = {} if job is None else {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restarts)}
        environ |= {"SLURM_JOB_NAME": "train"}
        options = LaunchOptions(("train",), run=self.run.root, stage="train", after=(self.before.root,))
        hands = Hands(self.execute, lambda: self.now, self.sleep, environ)
        return admit(options, SlurmEnvironment.from_environ(environ), hands)

    def submitted(self, job: str) -> None:
        self.before.submission.parent.mkdir(exist_ok=True)
        self.before.submission.write_text(json.dumps({"job_id": job}))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_it_begins_when_those_before_it_are_done(stage):
    stage.before.done.write_text("{}")
    assert stage.begins().refused is None
    assert not [each for each in stage.calls if "20" in each]


def test_a_done_that_this_node_sees_late_is_waited_for(stage):
    stage.at = {10.0: lambda: stage.before.done.write_text("{}")}
    assert stage.begins().refused is None
    assert 10.0 <= stage.now < 30.0


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUE_HOLD"])
def test_it_goes_back_into_the_queue_behind_the_job_that_works_on_the_stage_before(stage, state):
    stage.submitted("12")
    stage.queue = {"12": state}
    refused = stage.begins().refused
    assert stage.calls == ["scontrol requeue 20", "scontrol update JobId=20 Dependency=afterok:12"]
    assert (refused.requeued, refused.decision, refused.exit_code) == (True, "come-back", 75)
    assert refused.reason == "waits for prepare (job 12)"


def test_the_job_that_went_on_instead_is_waited_for_and_none_that_only_stands_behind(stage):
    stage.submitted("12")
    lines = [{"waiting": ["14", "guard", "13"]}, {"waiting": ["13", "resubmitted", "12"]}]
    (stage.before.root / "launch").mkdir()
    (stage.before.root / "launch" / "siblings.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    stage.queue = {"12": "FAILED", "13": "PENDING", "14": "PENDING"}
    stage.begins()
    assert stage.calls[-1].endswith("Dependency=afterok:13")


@pytest.mark.parametrize("queue", [{}, {"12": "FAILED"}, {"12": "CANCELLED"}])
def test_it_is_held_in_the_queue_where_it_says_why_when_nobody_works_on_the_stage_before(stage, queue):
    stage.submitted("12")
    stage.queue = queue
    refused = stage.begins().refused
    comment, hold = stage.calls
    said = "Comment=hpcresume: held: prepare is not done (no attempt of it is known); hpcresume requeue goes on there"
    assert comment == f"scontrol update JobId=20 {said}"
    assert hold == "scontrol requeuehold 20"
    assert (refused.held, refused.exit_code) == (True, EXIT_HOLD)
    stage.before.done.write_text("{}")
    stage.calls.clear()
    assert stage.begins(restarts=1).refused is None, "a person has let it go on, and now it may"


def test_what_slurm_refuses_ends_with_the_code_for_somebody_has_to_look(stage):
    stage.refused = {"requeue", "requeuehold", "hold"}
    refused = stage.begins().refused
    assert (refused.held, refused.requeued, refused.exit_code) == (False, False, EXIT_HOLD)


@pytest.mark.parametrize("works", [True, False])
def test_a_controller_that_is_silent_for_ten_minutes_neither_holds_nor_ends_it(stage, works):
    """Asked once, it had been held, as if nobody worked on the stage before it; or had ended with nothing said."""
    stage.submitted("12")
    stage.queue = {"12": "RUNNING" if works else "FAILED"}
    stage.silent_until = 600.0
    refused = stage.begins().refused
    assert 600.0 <= stage.now < 720.0
    assert (refused.requeued, refused.held) == (works, not works)
    assert stage.calls[-1] == ("scontrol update JobId=20 Dependency=afterok:12" if works else "scontrol requeuehold 20")


def test_a_controller_that_stays_silent_is_not_taken_for_an_empty_queue(stage, capsys):
    stage.submitted("12")
    stage.silent_until = 1e9
    refused = stage.begins().refused
    assert (refused.held, refused.exit_code) == (False, EXIT_HOLD)
    assert "who works on it cannot be asked" in refused.reason
    assert stage.now >= 1800


def test_a_job_that_was_started_again_meanwhile_is_left_alone(stage):
    stage.submitted("12")
    stage.queue, stage.restarts = {"12": "RUNNING"}, 1
    refused = stage.begins().refused
    assert (refused.requeued, refused.held, refused.exit_code) == (False, False, 75)
    assert stage.calls == []


def test_without_slurm_it_says_so_and_starts_nothing(stage, capsys):
    refused = stage.begins(job=None).refused
    assert refused.exit_code == EXIT_HOLD
    assert "train waits for prepare, which is not done" in capsys.readouterr().err
    assert stage.calls == []


def test_a_finished_stage_asks_for_nothing_any_more(stage):
    stage.run.done.write_text("{}")
    refused = stage.begins().refused
    assert (refused.decision, refused.exit_code) == ("done", 0)


def test_what_a_stage_was_made_from_is_what_the_done_of_those_before_it_says(stage):
    stage.before.done.write_text(json.dumps({"attempt": 3, "step": 40, "generation": "g000000000040-a0003", "x": 1}))
    (made,) = made_from([stage.before.root])
    assert made == {"stage": "prepare", "run": str(stage.before.root), "attempt": 3, "step": 40,
                    "generation": "g000000000040-a0003"}  # fmt: skip
    stage.before.done.write_text("half a li")
    assert made_from([stage.before.root]) == [{"stage": "prepare", "run": str(stage.before.root)}]


def test_a_program_that_ends_well_finishes_its_stage_and_nothing_else(stage):
    stage.before.done.write_text(json.dumps({"attempt": 3}))
    slurm = SlurmEnvironment(job_id="20")

    def ends(cause: Cause, name: str = "train") -> bool:
        options = LaunchOptions(("x",), run=stage.run.root, stage=name, after=(stage.before.root,))
        assert mark_program_done(options, slurm, cause)
        return stage.run.done.exists()

    assert not ends(Cause.CRASH)
    assert not ends(Cause.DONE, name="")
    assert ends(Cause.DONE)
    facts = json.loads(stage.run.done.read_text())
    assert (facts["program"], facts["job_id"], facts["made_from"][0]["attempt"]) == (True, "20", 3)
    stage.run.done.unlink()
    stage.run.run_json.write_text("{}")
    assert not ends(Cause.DONE), "a run that sessions have begun is theirs to finish"


def test_a_done_that_cannot_be_written_is_said(stage, capsys):
    blocked = stage.run.root / "file"
    blocked.write_text("")
    options = LaunchOptions(("x",), run=blocked / "run", stage="train")
    assert not mark_program_done(options, SlurmEnvironment(job_id="20"), Cause.DONE)
    assert "DONE cannot be written" in capsys.readouterr().err
