""".ci/run: which of its steps may skip what the machine lacks. Its make is a stand-in that says how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

pytestmark = pytest.mark.checkout


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def called(place: Path, *, user: int, packages: bool, fails: str = "") -> tuple[dict[str, str], int]:
    """Run a copy of it: by target, the CI of each make; and the exit code."""
    (place / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", place / ".ci" / "run")
    program(place / "tools/install_debian.sh", f"exit {0 if packages else 1}")
    programs = place / "programs"
    program(programs / "make", f'echo "$1=$CI" >> {place}/called; [ "$1" != "{fails}" ]')
    program(programs / "id", f"echo {user}")
    for name in ("bash", "sh", "dirname", "mktemp", "rm", "cat", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    environ = {key: value for key, value in os.environ.items() if key != "CI"} | {"PATH": str(programs)}
    done = subprocess.run([place / ".ci/run"], env=environ, capture_output=True, text=True, timeout=30, check=False)
    return dict(line.split("=") for line in (place / "called").read_text().splitlines()), done.returncode


@pytest.mark.parametrize(
    ("user", "packages", "strict"), [(0, True, "true"), (0, False, ""), (1000, True, ""), (1000, False, "")]
)
def test_where_the_second_slurm_can_be_had_its_tests_may_not_be_skipped(tmp_path, user, packages, strict):
    ci, code = called(tmp_path, user=user, packages=packages)
    assert code == 0
    assert ci.pop("test-storage") == ("true" if user == 0 and Path("/dev/fuse").exists() else "")
    assert ci.pop("test-slurm") == strict
    assert ci == dict.fromkeys(("lint", "types", "test", "wheel-test", "demo"), "")


@pytest.mark.parametrize("step", ["lint", "test-slurm", "wheel-test", "test-storage"])
def test_a_step_that_fails_fails_it(tmp_path, step):
    assert called(tmp_path, user=0, packages=True, fails=step)[1] != 0
