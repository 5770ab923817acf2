"""What must not lie in the repository."""

from __future__ import annotations

import fnmatch
import subprocess

import pytest

from tests.architecture.tree import ROOT

LEFT_BY_RUNS = ("slurm-*.out", "*.pyc", "core", "core.*", "hpcresume-demo.png", "submitit_logs/*")


@pytest.mark.checkout
def test_nothing_that_a_run_left_is_in_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert len(listed) > 100
    names = [name for name in listed if any(fnmatch.fnmatch(name.rpartition("/")[2], each) for each in LEFT_BY_RUNS)]
    assert names == []
