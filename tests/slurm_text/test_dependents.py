"""Who waits for a job, from squeue's answer, and how it is told to wait for another one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hpcresume.slurm.commands import Answer
from hpcresume.slurm.dependents import after_all, dependents_of, lead_over


class Queue:
    """Answers squeue with these jobs, and keeps what scontrol is told."""

    def __init__(self, jobs: dict[str, str], refusal: str = "") -> None:
        self.jobs, self.refusal = jobs, refusal
        self.updates: list[tuple[str, ...]] = []

    def __call__(self, words: Sequence[str], _timeout: float) -> Answer:
        if words[0] == "squeue":
            assert {"--me", "--states=PENDING"} <= set(words)
            form = next(word for word in words if word.startswith("--format=")).partition("=")[2]
            lines = (form.replace("%i", job).replace("%E", waits) for job, waits in self.jobs.items())
            return Answer(0, "".join(f"{line}\n" for line in lines), "")
        assert words[:2] == ["scontrol", "update"]
        self.updates.append(tuple(words[2:]))
        return Answer(1, "", self.refusal) if self.refusal else Answer(0, "", "")


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        ("afterok:12(unfulfilled)", "Dependency=afterok:15"),
        ("afterok:12(failed)", "Dependency=afterok:15"),
        ("afterany:12(unfulfilled)", "Dependency=afterany:15"),
        ("afterok:11(unfulfilled),afterok:12(failed)", "Dependency=afterok:11,afterok:15"),
        ("afterok:12(unfulfilled)?afterok:13(unfulfilled)", "Dependency=afterok:15?afterok:13"),
        ("afterok:12(unfulfilled),afternotok:12(unfulfilled)", "Dependency=afterok:15,afternotok:12"),
        ("afterok:12(unfulfilled),afterok:7_*(unfulfilled)", "Dependency=afterok:15,afterok:7"),
        ("afterok:12(unfulfilled),singleton(unfulfilled)", "Dependency=afterok:15,singleton"),
    ],
)
def test_who_waits_for_the_end_of_a_job_waits_for_the_end_of_its_successor(shown, wanted):
    queue = Queue({"20": shown})
    assert lead_over("12", "15", execute=queue) == (("20", ""),)
    assert queue.updates == [("JobId=20", wanted)]


@pytest.mark.parametrize(
    "shown",
    ["(null)", "", "afterok:120(unfulfilled)", "afterok:1(unfulfilled)", "afternotok:12(unfulfilled)", "singleton",
     "after:12(unfulfilled)", "afterok:12_3(unfulfilled)", "afterok:112_12(failed)", "nonsense"],
)  # fmt: skip
def test_who_waits_for_something_else_is_left_alone(shown):
    queue = Queue({"20": shown})
    assert lead_over("12", "15", execute=queue) == ()
    assert queue.updates == []


def test_a_task_of_an_array_is_one_job_of_its_own():
    queue = Queue({"20": "afterok:12_3(unfulfilled)", "21": "afterok:12_4(unfulfilled)"})
    assert lead_over("12_3", "15_3", execute=queue) == (("20", ""),)
    assert queue.updates == [("JobId=20", "Dependency=afterok:15_3")]


def test_a_failed_job_that_is_started_again_is_waited_for_anew_and_one_that_has_not_failed_still_is():
    queue = Queue({"20": "afterok:12(failed)", "21": "afterok:12(unfulfilled)"})
    assert lead_over("12", "12", execute=queue) == (("20", ""),)
    assert queue.updates == [("JobId=20", "Dependency=afterok:12")]


def test_the_new_job_itself_and_those_that_are_named_are_left_alone_and_a_refusal_is_said():
    queue = Queue(dict.fromkeys(("15", "16", "17"), "afterany:12(unfulfilled)"), refusal="Access denied")
    assert lead_over("12", "15", but=["16"], execute=queue) == (("17", "Access denied"),)


def test_garbage_and_a_silent_slurm_mean_nobody():
    for out in ("\x00", "~a~20~a~afterok:12\n", "20|afterok:12(failed)\n" * 3):
        assert dependents_of("12", execute=lambda _w, _t, out=out: Answer(0, out, "")) == ()
    assert dependents_of("12", execute=lambda *_: Answer(None, "", "no answer within 10 s"), sleep=lambda _: None) == ()
    assert dependents_of("12; rm", execute=lambda *_: pytest.fail("no command")) == ()  # type: ignore[arg-type]
    assert after_all(["1", "2_3"]) == "afterok:1:2_3"
