"""The lines in which an emulation tells what happens."""

from __future__ import annotations

from hpcresume.emulate.lines import Lines
from hpcresume.model import Event


def told(*jobs: str) -> list[str]:
    lines = Lines()
    return [lines.of(Event("grace-over", {"at": 1.0, "job": job})) for job in jobs]


def test_the_one_job_there_is_needs_no_name():
    assert told("12", "12") == ["1.0 s grace is over"] * 2


def test_every_task_of_an_array_is_named():
    assert told("12_1", "12_1") == ["job 12_1: 1.0 s grace is over"] * 2


def test_jobs_are_named_as_soon_as_there_are_several():
    assert [line.split()[1] for line in told("12", "13", "12")] == ["s", "13:", "12:"]
