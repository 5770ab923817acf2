"""docs/TIME.md is true: its examples work, its options and rhythms exist, its numbers are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpcresume.cli.launch import command
from hpcresume.config.durations import parse_cadence
from hpcresume.config.job import read_job
from hpcresume.io import timings
from hpcresume.policy import cadence, deadline, failures, lead
from hpcresume.policy.cadence import Auto
from hpcresume.session import saver
from hpcresume.submit.lead import UNMEASURED
from tests.architecture.tree import ROOT
from tests.docs.blocks import blocks

pytestmark = pytest.mark.checkout
PAGE = ROOT / "docs" / "TIME.md"
TEXT = PAGE.read_text()


def test_its_job_is_a_job():
    (job,) = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    spec = read_job(job).spec
    assert (spec.resources.time_min, spec.requeue.warning_lead) == ("1h", "auto")


def test_its_python_runs(tmp_path: Path):
    for block in (block for block in blocks(PAGE) if block.language == "python"):
        subprocess.run([sys.executable, "-c", block.text], cwd=tmp_path, check=True, timeout=60, capture_output=True)
        assert (tmp_path / "runs/auto/DONE").exists()


def test_its_options_are_known():
    found = re.findall(r"`hpcresume launch (--[a-z-]+[= ][0-9a-z]+)[^`]*`", TEXT)
    assert len(found) >= 3
    for option in found:
        done = CliRunner().invoke(command, [*option.split(), "--mpi=direct", "--run=x", "--dry-run", "--", "true"])
        assert done.exit_code == 0, (option, done.output)


def test_its_rhythms_are_read():
    rhythms = re.findall(r"^\| `(auto[^`]*)` \|", TEXT, re.M)
    assert len(rhythms) == 4
    assert all(isinstance(parse_cadence(each), Auto) for each in rhythms)


def test_its_numbers_are_those_of_the_code():
    plain = " ".join(TEXT.split())
    assert f"({deadline.CAUTION} + {lead.FEW:g} / n)" in plain
    assert f"at least {lead.LEAST:g} s, at most a quarter" in plain
    assert lead.MOST_SHARE == 0.25
    assert "last five attempts" in plain
    assert timings.ATTEMPTS == 5
    assert f"the newest {timings.SAVES} full saves" in plain
    assert f"{deadline.LEAVING:g} s at the least" in plain
    assert "median of the last five saves" in plain
    assert saver.RECENT == 5
    assert "between one minute and two hours" in plain
    assert (cadence.SHORTEST, cadence.LONGEST) == (60, 7200)
    assert f"(default: {cadence.MOST_SHARE * 100:g} %)" in plain
    assert f"last {timings.PAST} attempts" in plain
    assert failures.PRIOR == failures.Exposure(2, 12 * 3600)
    assert "two such ends in 12 hours" in plain
    assert "5 min before it has saved once" in plain
    assert UNMEASURED == 300
