"""What squeue and sacctmgr tell of a job's QOS, and answers that are no such thing."""

from __future__ import annotations

import pytest

from hpcresume.errors import SlurmError
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.qos import Qos, qos_of_job


def asked(name: str, table: str, *, code: int | None = 0) -> Qos:
    def execute(words, _timeout):
        return Answer(0, name + "\n", "") if words[0] == "squeue" else Answer(code, table, "")

    return qos_of_job("12", execute=execute)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("standby|00:00:30|cluster\n", Qos("standby", 30.0)),
        ("standby|00:00:00|requeue\n", Qos("standby", 0.0, "REQUEUE")),
        ("standby|1-00:00:00|\n", Qos("standby", 86400.0)),
        ("standby|odd|cancel\n", Qos("standby", None, "CANCEL")),
        ("other|00:00:09|cancel\nstandby|00:01:00|cluster\n", Qos("standby", 60.0)),
    ],
)
def test_grace_and_mode(table, found):
    assert asked("standby", table) == found


@pytest.mark.parametrize(
    ("name", "table", "code"),
    [
        ("", "", 0),
        ("standby\nlow", "standby|00:00:30|cluster\n", 0),
        ("--all", "--all|00:00:30|cluster\n", 0),
        ("standby", "", 0),
        ("standby", "standby|00:00:30\n", 0),
        ("standby", "standby|00:00:30|\x1b[31m\n", 0),
        ("standby", "", 1),
        ("standby", "", None),
    ],
)
def test_what_is_no_answer_is_an_error(name, table, code):
    with pytest.raises(SlurmError):
        asked(name, table, code=code)


def test_what_is_no_job_is_never_an_argument():
    with pytest.raises(SlurmError, match="not a job id"):
        qos_of_job("--user=root")
