"""`make` says what is missing in words, and what to do about it, before it changes anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

pytestmark = pytest.mark.checkout

SCRIPT = ROOT / "tools" / "make_environment.sh"


def make_environment(tmp_path: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the script with another python; a shell script stands in for the interpreter."""
    stand_in = tmp_path / "python-stand-in"
    stand_in.write_text(f"#!/bin/sh\n{python}\n")
    stand_in.chmod(0o755)
    return subprocess.run(
        [str(SCRIPT), str(tmp_path / "venv")],
        env={**os.environ, "PYTHON": str(stand_in)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_python_without_venv_is_named_with_the_package_that_brings_it(tmp_path):
    ended = make_environment(tmp_path, 'case "$2" in *ensurepip*) exit 1;; esac')
    assert ended.returncode == 1
    assert "venv or ensurepip is missing" in ended.stderr
    assert "try: apt-get install python3-venv" in ended.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_too_old_is_refused_with_its_version(tmp_path):
    ended = make_environment(tmp_path, 'case "$1$2" in --version) echo Python 3.8.1;; *version_info*) exit 1;; esac')
    assert ended.returncode == 1
    assert "Python 3.8.1 is too old, 3.10 is the oldest that works" in ended.stderr


def test_a_python_that_does_not_exist_is_named(tmp_path):
    ended = subprocess.run(
        [str(SCRIPT), str(tmp_path / "venv")],
        env={**os.environ, "PYTHON": "python3.99"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert "there is no python3.99" in ended.stderr


def test_torch_is_pinned_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("torch==")]


@pytest.mark.parametrize("target", ["demo", "test", "test-slurm", "lint", "types", "bench", "wheel-test", "clean"])
def test_make_help_lists_every_target(target):
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"make {target} " in listed
