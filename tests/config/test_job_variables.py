"""Variables that a job may not set: those that hpcresume itself sets are all among them."""

from __future__ import annotations

import re

import pytest

from hpcresume.config.job_variables import SUPERVISOR_VARIABLES, by_shell, unexpanded
from tests.architecture.tree import ROOT

_FOR_PEOPLE = {"HPCRESUME_TRACEBACK"}
"""Variables of ours that a job may well set."""
_ELSEWHERE = {"HPCRESUME_RUN", "HPCRESUME_BASH_ENV", "HPCRESUME_DEMO_REFERENCE"}
"""Refused by a rule of its own; a shell's start file and a comparison that never get into a job's own processes."""
_MARKS = {"HPCRESUME_EMULATOR", "HPCRESUME_EMULATED_JOB", "HPCRESUME_EMULATED_TASK", "HPCRESUME_MINISLURM"}
"""By these an emulated cluster and a MiniSlurm find their processes; neither takes a job's word for them."""


@pytest.mark.checkout
def test_every_variable_that_tells_the_ranks_who_they_are_is_known():
    """A new one that nobody adds to the list could be set by a job.yaml, and would be believed."""
    used: set[str] = set()
    for path in (ROOT / "hpcresume").rglob("*.py"):
        used |= set(re.findall(r'"(HPCRESUME_[A-Z_]+[A-Z])"', path.read_text()))
    used = {name for name in used if not name.startswith(("HPCRESUME_CHECKPOINT_", "HPCRESUME_JOB_"))}
    beginnings = {name for name in used if name not in SUPERVISOR_VARIABLES and
                  any(each.startswith(name + "_") for each in SUPERVISOR_VARIABLES)}  # fmt: skip
    assert used - beginnings - _FOR_PEOPLE - _ELSEWHERE - _MARKS == SUPERVISOR_VARIABLES


@pytest.mark.parametrize(
    ("value", "found"),
    [("$HOME/a", "$HOME"), ("a:${B}:c", "$B"), ("~/a", "~"), ("/a:~/b", "~"), ("~", "~"), ("5$", None), ("$(x)", None),
     ("a~b", None), ("$5", None), ("", None), ("~user/a", None)],
)  # fmt: skip
def test_what_a_shell_would_expand_is_found(value, found):
    assert unexpanded(value) == found


def test_the_line_to_write_instead_is_one_that_a_shell_expands(tmp_path):
    import subprocess

    for value, want in [("$HOME/a b", f"{tmp_path}/a b"), ("~/b", f"{tmp_path}/b")]:
        line = by_shell("NEW", value).partition(": - ")[2]
        shown = subprocess.run(
            ["bash", "-c", f'{line}; printf %s "$NEW"'], env={"HOME": str(tmp_path)}, capture_output=True, check=True
        )
        assert shown.stdout.decode() == want
