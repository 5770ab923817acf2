"""What sacct remembers, as 22.05 and 24.11 print it."""

from __future__ import annotations

import pytest

from hpcresume.slurm.accounting import (
    SEPARATOR,
    PastStart,
    asked_on_command_line,
    memory_kills_of_steps,
    past_starts,
    warning_in,
    warning_of_job,
)
from hpcresume.slurm.batch_script import AskedWarning
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.job_text import parse_time

OFF = Answer(1, "", "Slurm accounting storage is disabled\n")


def says(*rows: tuple[str, ...]):
    def execute(words, _timeout):
        assert words[0] == "sacct"
        assert words[-1] == "--jobs=12"
        return Answer(0, "".join(SEPARATOR.join(row) + "\n" for row in rows), "")

    return execute


def test_the_starts_of_a_job_come_in_order_with_slurms_last_word_on_each():
    found = past_starts("12", execute=says(("RUNNING", "2026-11-21T12:10:00", "Unknown"),
                                           ("NODE_FAIL", "2026-11-21T12:00:00", "2026-11-21T12:05:00"),
                                           ("CANCELLED by 1000", "2026-11-21T12:20:00", "2026-11-21T12:21:00"),
                                           ("garbage",), ("no state", "x", "y")))  # fmt: skip
    assert [each.state for each in found] == ["NODE_FAIL", "RUNNING", "CANCELLED"]
    assert found[0] == PastStart("NODE_FAIL", parse_time("2026-11-21T12:00:00"), parse_time("2026-11-21T12:05:00"))


def test_a_step_that_was_out_of_memory_is_named():
    rows = (("12", "FAILED", "137:0"), ("12.batch", "FAILED", "137:0"), ("12.0", "OUT_OF_MEMORY", "0:125"))
    assert memory_kills_of_steps("12", execute=says(*rows)) == (
        "Slurm: step 12.0 ended as OUT_OF_MEMORY (exit code 0:125; sacct)",
    )
    assert memory_kills_of_steps("12", execute=says(*rows[:2])) == ()


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("sbatch --signal=B:USR1@300 job.sh", AskedWarning("USR1", True, 300)),
        ("sbatch --signal USR2 job.sh", AskedWarning("USR2", False, 60)),
        ("sbatch --sig=10@90 job.sh", AskedWarning("USR1", False, 90)),
        ("sbatch -N2 --time 10 --parsable --signal=B:USR1@30 -p low a.sh --signal=USR2@9",
         AskedWarning("USR1", True, 30)),
        ("sbatch --signal=USR1@10 --signal=USR2@20 job.sh", AskedWarning("USR2", False, 20)),
        ("/opt/slurm/bin/sbatch -H --signal=USR1 -J 'my job' job.sh", AskedWarning("USR1", False, 60)),
        ("sbatch --signal=USR1@10 --wrap 'train --signal=USR2@20'", AskedWarning("USR1", False, 10)),
        ("sbatch -p low job.sh --signal=USR2@9", None),
        ("sbatch -H job.sh --signal=USR2@9", None),
        ("sbatch --requeue job.sh --signal=USR2@9", None),
        ("sbatch -- job.sh --signal=USR2@9", None),
        ("sbatch --wrap 'train --signal=USR2@20'", None),
        ("sbatch --signal=NONSENSE job.sh", None),
        ("sbatch --comment='unbalanced job.sh", None),
        ("sbatch --signal", None),
        ("sbatch", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_warning_asked_for_beside_the_script_is_read_from_the_command_line(line, asked):
    assert warning_in(line) == asked
    assert asked_on_command_line("12", execute=says((line,))) == asked


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("sbatch --signal=USR2@90 job.sh", AskedWarning("USR2", False, 90)),
        ("sbatch job.sh", AskedWarning("USR1", True, 30)),
    ],
    ids=["the command line wins", "else the script's"],
)
def test_a_jobs_warning_is_that_of_its_command_line_or_of_its_script(line, asked):
    def execute(words, timeout):
        if words[0] == "scontrol":
            return Answer(0, "#!/bin/sh\n#SBATCH --signal=B:USR1@30\n", "")
        return says((line,))(words, timeout)

    assert warning_of_job("12", execute=execute) == asked


def test_a_line_break_and_any_character_in_the_command_line_do_no_harm():
    line = "sbatch --comment='a|b\nc' --signal=USR1@30 job.sh"
    assert asked_on_command_line("12", execute=says((line,))) == AskedWarning("USR1", False, 30)


@pytest.mark.parametrize("answer", [OFF, Answer(None, "", "no answer within 5 s"), Answer(0, "", "")])
def test_a_cluster_without_accounting_knows_nothing(answer):
    def execute(words, timeout):
        return answer

    assert past_starts("12", execute=execute, sleep=lambda _: None) == ()
    assert memory_kills_of_steps("12", execute=execute, sleep=lambda _: None) == ()
    assert asked_on_command_line("12", execute=execute, sleep=lambda _: None) is None


def test_what_is_no_job_is_not_asked_for():
    assert past_starts("12; reboot", execute=lambda *_: pytest.fail("asked")) == ()
