"""A job submitted again: one job, whatever sbatch answers; and what it asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hpcresume.errors import SlurmError
from hpcresume.slurm.asked import Asked, asked_for
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.resubmit import names_time, same_again, submit_again, submitted_as
from hpcresume.testing.fake_slurm import FakeSlurm

TIMED_OUT = Answer(1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n")
HANGING = Answer(None, "", "no answer within 20 s")
SILENT = Answer(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
MADE, NOT_MADE = True, False


class Controller:
    """A fake Slurm whose sbatch does not answer at first, though it may have made the job."""

    def __init__(self, *made: bool, answer: Answer = TIMED_OUT) -> None:
        self.slurm = FakeSlurm(2)
        self.slurm.submit("#!/bin/sh\n", command="/home/user/job.sh")
        self.made = list(made)
        self.answer = answer
        self.late: list[Callable[[], object]] = []

    def execute(self, words: Sequence[str], timeout: float) -> Answer:
        if words[0] == "sbatch" and self.made:
            if self.made.pop(0):
                self.slurm.execute(words, timeout)
            return self.answer
        answer = self.slurm.execute(words, timeout)
        if words[0] == "squeue" and self.late:
            self.late.pop(0)()
        return answer

    @property
    def submitted(self) -> list[str]:
        """Of our script, and still there."""
        return [job.id for job in self.slurm.jobs.values() if job.command.endswith(".sbatch") and not job.over]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "hpcresume-x.sbatch"
    path.write_text("#!/bin/sh\n")
    return path


@pytest.mark.parametrize("answer", [TIMED_OUT, HANGING], ids=["timed out", "hanging"])
@pytest.mark.parametrize("made", [(MADE,), (NOT_MADE,), (NOT_MADE, MADE), (NOT_MADE, NOT_MADE), ()], ids=str)
def test_an_sbatch_that_was_not_answered_makes_one_job_whether_or_not_it_had_made_it(script, made, answer):
    controller = Controller(*made, answer=answer)
    number = submit_again(script, [], execute=controller.execute, sleep=lambda seconds: None)
    assert controller.submitted == [number]


def test_a_job_that_an_earlier_try_makes_after_all_is_cancelled(script):
    controller = Controller(NOT_MADE)
    controller.late = [lambda: controller.slurm.execute(["sbatch", str(script)], 1)]
    number = submit_again(script, [], execute=controller.execute, sleep=lambda seconds: None)
    assert controller.submitted == [number]
    assert sum(job.state == "CANCELLED" for job in controller.slurm.jobs.values()) == 1


def test_what_an_earlier_call_may_have_made_is_looked_for_first(script):
    controller = Controller(MADE, MADE, MADE)
    controller.slurm.fault = lambda words: SILENT if words[0] == "squeue" else None
    with pytest.raises(SlurmError, match="no answer within"):
        submit_again(script, [], execute=controller.execute, sleep=lambda seconds: None)
    assert len(controller.submitted) == 1, "not once more before anybody knows"
    controller.slurm.fault = None
    found = submit_again(script, [], tried=True, execute=controller.execute, sleep=lambda seconds: None)
    assert controller.submitted == [found]


def test_a_refusal_is_not_tried_again(script):
    controller = Controller(NOT_MADE, NOT_MADE, answer=Answer(1, "", "sbatch: error: Invalid qos specification\n"))
    with pytest.raises(SlurmError, match="Invalid qos"):
        submit_again(script, [], execute=controller.execute)
    assert controller.made == [NOT_MADE]


def test_jobs_of_other_scripts_are_not_taken_for_it(script):
    controller = Controller()
    assert submitted_as(script, execute=controller.slurm.execute) == ()
    assert submitted_as(Path("/home/user/job.sh"), execute=controller.slurm.execute) == ("101",)
    assert submitted_as(script, execute=lambda words, timeout: SILENT, sleep=lambda seconds: None) is None


# ---- what it asks for


def answered(**said: str) -> Callable[[Sequence[str], float], Answer]:
    """squeue's answer, by the letters of its format."""
    usual = {"f": "(null)", "x": "", "n": "", "W": "(null)", "d": "0", "y": "0", "w": "(null)", "b": "N/A",
             "v": "(null)", "h": "OK", "l": "UNLIMITED", "k": "(null)"}  # fmt: skip

    def execute(words: Sequence[str], timeout: float) -> Answer:
        form = next(word for word in words if word.startswith("--format=")).partition("=")[2]
        return Answer(0, re.sub("%([A-Za-z])", lambda match: {**usual, **said}[match[1]], form) + "\n", "")

    return execute


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, []),
        ({"f": "a100&ib", "x": "n[3,5]", "W": "matlab:2"}, ["--constraint=a100&ib", "--exclude=n[3,5]",
                                                            "--licenses=matlab:2"]),
        ({"b": "gres:gpu:a100:2,gres:shard:1"}, ["--gres=gpu:a100:2,shard:1"]),
        ({"b": "gres/gpu:2"}, ["--gres=gpu:2"]),
        ({"h": "NO", "y": "100", "d": "10G"}, ["--tmp=10G", "--nice=100", "--exclusive"]),
        ({"h": "YES", "y": "-5", "w": "*mine"}, ["--oversubscribe"]),
        ({"v": "maint", "n": "n1"}, ["--nodelist=n1", "--reservation=maint"]),
    ],
)  # fmt: skip
def test_what_was_asked_for_on_the_command_line_is_asked_for_again(said, words):
    asked = asked_for("12", execute=answered(**said))
    assert same_again({}, None, asked) == words


def test_what_is_no_answer_to_the_question_is_not_believed():
    nothing = Asked()
    assert asked_for("12", execute=lambda words, timeout: Answer(0, "a\nb\n", "")) == nothing
    assert asked_for("12", execute=lambda words, timeout: Answer(0, "", "")) == nothing
    assert asked_for("12", execute=lambda words, timeout: SILENT, sleep=lambda seconds: None) == nothing
    assert asked_for("12", execute=answered(f="\x1b[2J")).known == {}
    with pytest.raises(SlurmError):
        asked_for("12; reboot")


def test_slurms_words_win_over_the_environment_and_two_ways_to_ask_for_gpus_are_one():
    environ = {
        "SLURM_GPUS_PER_NODE": "2",
        "SLURM_JOB_RESERVATION": "old",
        "SLURM_NTASKS": "4",
        "SLURM_HINT": "nomultithread",
    }
    words = same_again(environ, "/home/ann", asked_for("12", execute=answered(b="gres:gpu:2", v="new")))
    assert set(words) == {
        "--gres=gpu:2",
        "--reservation=new",
        "--ntasks=4",
        "--hint=nomultithread",
        "--chdir=/home/ann",
    }


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("#!/bin/sh\n#SBATCH --time=4:00:00\n", True),
        ("#!/bin/sh\n#SBATCH -N 2 -t 30\n", True),
        ("#!/bin/sh\n#SBATCH -t30\n", True),
        ("#!/bin/sh\n#SBATCH --time-min=10\n#SBATCH --ntasks=3\n", False),
        ("#!/bin/sh\necho\n#SBATCH --time=4\n", False),
    ],
)
def test_whether_a_script_names_its_limit(script: str, named: bool):
    assert names_time(script) is named
