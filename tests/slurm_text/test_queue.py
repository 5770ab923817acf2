"""One squeue for any number of jobs, and no text in its answer that breaks the reading of it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcresume.errors import SlurmError
from hpcresume.slurm import orders
from hpcresume.slurm.commands import Answer, execute
from hpcresume.slurm.queue import FIELDS, QueuedJob, ask_queue, parse_queue
from tests.submit.scripts import stand_in

MARK = "~4f~"


def line(*cells: str, mark: str = MARK) -> str:
    return mark + mark.join(cells) + mark + "\n"


class FakeSqueue:
    """Answers with records of its jobs, between the marks that it was asked to print."""

    def __init__(self, *rows: tuple[str, ...], answers: list[Answer] | None = None) -> None:
        self.rows, self.calls, self.answers = rows, [], answers or []

    def __call__(self, arguments, timeout):
        self.calls.append(list(arguments))
        if self.answers:
            return self.answers.pop(0)
        text = next(word for word in arguments if word.startswith("--format=")).removeprefix("--format=")
        mark = text.split("%")[0]
        return Answer(0, "".join(line(*row, mark=mark) for row in self.rows), "")


RUNNING = ("7", "RUNNING", "None", "2026-11-21T17:08:03", "2026-11-21T19:08:03", "n[1-2]", "low")
WAITING = ("8", "PENDING", "Resources", "2026-11-22T01:00:00", "N/A", "", "low,high")


def test_a_thousand_jobs_are_asked_for_by_one_call_without_any_name_of_a_user():
    squeue = FakeSqueue(RUNNING, WAITING)
    found = ask_queue([str(n) for n in range(1, 1001)], execute=squeue)
    (words,) = squeue.calls
    assert words[:4] == ["squeue", "--noheader", "--states=all", "--array"]
    assert words[-1].startswith("--jobs=1,2,3,")
    assert all(letter not in "".join(FIELDS) for letter in ("%j", "%k", "%o", "%u", "%Z"))
    assert found["7"] == QueuedJob("7", "RUNNING", "", time.mktime((2026, 11, 21, 17, 8, 3, 0, 0, -1)),
                                   time.mktime((2026, 11, 21, 19, 8, 3, 0, 0, -1)), "n[1-2]", "low")  # fmt: skip
    assert (found["8"].waiting, found["8"].reason, found["8"].end) == (True, "Resources", None)


def test_so_many_jobs_that_no_argument_could_name_them_are_asked_for_without_naming():
    squeue = FakeSqueue(RUNNING, ("99999999", "RUNNING", "None", "N/A", "N/A", "n1", "low"))
    found = ask_queue([str(n) for n in range(1, 30_000)], execute=squeue)
    assert not any(word.startswith("--jobs") for word in squeue.calls[0])
    assert set(found) == {"7"}, "a job that was not asked for is nobody's"


def test_nothing_is_asked_when_there_is_no_job_to_ask_for():
    squeue = FakeSqueue()
    assert ask_queue(["", "abc", "1;rm -rf /", "--help", "٣"], execute=squeue) == {}
    assert squeue.calls == []


def test_the_id_of_an_array_gives_its_tasks_and_the_leader_stands_for_a_heterogeneous_job():
    cells = RUNNING[1:]
    squeue = FakeSqueue(("120_3", *cells), ("120_[4-9%2]", *cells), ("130+0", *cells), ("130+1", *cells))
    assert set(ask_queue(["120", "130"], execute=squeue)) == {"120_3", "130"}


@pytest.mark.parametrize(
    ("state", "reason", "held", "waiting", "active", "over"),
    [
        ("PENDING", "JobHeldUser", True, True, False, False),
        ("PENDING", "JobHeldAdmin", True, True, False, False),
        ("PENDING", "job requeued in held state", True, True, False, False),
        ("PENDING", "launch_failed_requeued_held", True, True, False, False),
        ("REQUEUE_HOLD", "None", True, True, False, False),
        ("SPECIAL_EXIT", "None", True, True, False, False),
        ("PENDING", "BeginTime", False, True, False, False),
        ("CONFIGURING", "None", False, False, True, False),
        ("COMPLETING", "None", False, False, True, False),
        ("CANCELLED by 1000", "None", False, False, False, True),
        ("TIMEOUT", "TimeLimit", False, False, False, True),
    ],
)
def test_what_a_state_means(state, reason, held, waiting, active, over):
    job = parse_queue(line("7", state, reason, "N/A", "N/A", "", "low"), MARK)["7"]
    assert (job.held, job.waiting, job.active, job.over) == (held, waiting, active, over)


@pytest.mark.parametrize(
    "answer", ["garbage", line("7", "RUNNING"), line(*RUNNING)[:-9], "\x1b[31m\n" + line(*RUNNING)]
)
def test_what_is_no_list_of_jobs_is_a_typed_error(answer):
    with pytest.raises(SlurmError, match="no list of jobs"):
        parse_queue(answer, MARK)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=len(FIELDS), max_size=len(FIELDS)), st.text(max_size=40))
def test_no_text_in_a_field_breaks_the_reading_or_makes_up_a_job(cells, reason):
    cells = [cell.replace(MARK, "") for cell in cells]
    text = line(*cells) + line("7", "PENDING", reason.replace(MARK, ""), "N/A", "N/A", "", "low")
    found = parse_queue(text, MARK)
    assert found["7"].state == "PENDING"
    assert len(found) <= 2


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=400), st.text(alphabet=f"{MARK}7_RUNIG\n ", max_size=400)))
def test_garbage_gives_jobs_or_a_typed_error_and_nothing_else(text):
    try:
        parse_queue(text, MARK)
    except SlurmError:
        return


def test_64_kib_of_text_in_a_field_are_read_and_cut():
    job = parse_queue(line("7", "PENDING", "x\n|\x1b[2J\u202e" * 16384, "N/A", "N/A", "", "low"), MARK)["7"]
    assert len(job.reason) == 200


def test_a_busy_controller_is_asked_again(monkeypatch):
    monkeypatch.setattr("hpcresume.slurm.commands.PAUSES", (0.0, 0.0))
    squeue = FakeSqueue(RUNNING, answers=[Answer(1, "", "slurm_load_jobs error: Socket timed out")] * 2)
    assert "7" in ask_queue(["7"], execute=squeue)
    assert len(squeue.calls) == 3


def test_a_job_that_slurm_has_forgotten_is_no_error():
    squeue = FakeSqueue(answers=[Answer(1, "", "slurm_load_jobs error: Invalid job id specified\n")])
    assert ask_queue(["7"], execute=squeue) == {}


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("#!/bin/sh\nexit 3\n", "exit code 3"),
        ("#!/bin/sh\nprintf 'squeue: loading\\nno such \\033[31m thing\\n' >&2; exit 1\n", "no such ?[31m thing"),
        ("#!/bin/sh\nhead -c 100000 /dev/urandom\n", "no list of jobs"),
        ("#!/bin/sh\nexec sleep 30\n", "no answer within 0.3 s"),
        (None, "there is no such command here"),
    ],
)
def test_a_squeue_that_fails_hangs_lies_or_is_missing_is_a_typed_error(tmp_path, monkeypatch, script, what):
    if script is not None:
        stand_in(tmp_path / "bin", "squeue", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin" if script is not None else str(tmp_path))
    with pytest.raises(SlurmError) as caught:
        ask_queue(["7"], timeout=0.3 if "sleep" in str(script) else 10.0, execute=execute)
    assert what in caught.value.what
    assert caught.value.hint


# ---- orders


def test_orders_are_argument_lists_with_a_checked_number():
    assert orders.cancel("7").arguments == ("scancel", "7")
    assert orders.warn("7_1", "USR1", batch=True).arguments == ("scancel", "--batch", "--signal=USR1", "7_1")
    assert orders.warn("7", "USR1", batch=False).arguments == ("scancel", "--signal=USR1", "7")
    for wrong in ("", "7; rm", "--help", "7_*", "all", "7\n8"):
        for order in (orders.cancel, orders.release, orders.requeue):
            with pytest.raises(SlurmError, match="not a job id"):
                order(wrong)


def test_a_refused_order_says_slurms_own_words():
    refuse = FakeSqueue(answers=[Answer(1, "", "Invalid job id specified for job 7\n")])
    with pytest.raises(SlurmError, match="scancel was refused: Invalid job id specified for job 7"):
        orders.give(orders.cancel("7"), execute=refuse)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_a_log_path_is_one_absolute_line_or_unknown(text):
    found = orders.output_pattern("7", execute=FakeSqueue(answers=[Answer(0, text, "")]))
    assert found is None or (found.startswith("/") and "\n" not in found)
