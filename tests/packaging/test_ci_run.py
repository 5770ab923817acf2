""".ci/run: which of its steps may skip what the machine lacks. Its make is a stand-in that says how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.support.lacking import needed

pytestmark = pytest.mark.checkout


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def called(
    place: Path, *, user: int, packages: bool, fails: str = "", skips: str = ""
) -> tuple[dict[str, str], int, list[str]]:
    """Run a copy of it: by target, the CI of each make; the exit code; and its last lines."""
    (place / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", place / ".ci" / "run")
    program(place / "tools/install_debian.sh", f"exit {0 if packages else 1}")
    programs = place / "programs"
    skip = f'echo "{skips}" >> "$HPCRESUME_TOLD_SKIPS"' if skips else ":"
    program(programs / "make", f'echo "$1=$CI" >> {place}/called; [ "$1" != test ] || {skip}; [ "$1" != "{fails}" ]')
    program(programs / "id", f"echo {user}")
    for name in ("bash", "sh", "dirname", "mktemp", "rm", "cat", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    environ = {key: value for key, value in os.environ.items() if key != "CI"} | {"PATH": str(programs)}
    done = subprocess.run([place / ".ci/run"], env=environ, capture_output=True, text=True, timeout=30, check=False)
    ci = dict(line.split("=") for line in (place / "called").read_text().splitlines())
    lines = done.stdout.splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("== no"))
    return ci, done.returncode, lines[last:]


@pytest.mark.parametrize(
    ("user", "packages", "strict"), [(0, True, "true"), (0, False, ""), (1000, True, ""), (1000, False, "")]
)
def test_where_the_second_slurm_can_be_had_its_tests_may_not_be_skipped(tmp_path, user, packages, strict):
    ci, code, last = called(tmp_path, user=user, packages=packages)
    assert code == 0
    assert any(line.startswith("make test-slurm was free to skip") for line in last) is (strict == "")
    assert ci.pop("test-storage") == ("true" if user == 0 and Path("/dev/fuse").exists() else "")
    assert ci.pop("test-slurm") == strict
    assert ci == dict.fromkeys(("lint", "types", "test", "wheel-test", "demo"), "")


@pytest.mark.parametrize("step", ["lint", "test-slurm", "wheel-test", "test-storage"])
def test_a_step_that_fails_fails_it(tmp_path, step):
    assert called(tmp_path, user=0, packages=True, fails=step)[1] != 0


def test_its_last_lines_are_what_was_skipped(tmp_path):
    skipped = "1 skipped in tests/x.py: no such thing here"
    _, code, last = called(tmp_path, user=1000, packages=True, skips=skipped)
    assert code == 0
    assert last == [
        "== not proven by this run:",
        skipped,
        "make test-slurm was free to skip what the machine lacks: not root",
        "make test-storage was free to skip what the machine lacks: not root",
    ]


def test_a_test_that_was_skipped_is_told_with_its_reason(tmp_path):
    told, own = tmp_path / "told", tmp_path / "test_it.py"
    own.write_text("import pytest\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_it(n):\n    pytest.skip('no x')\n")
    plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider"]
    words = [sys.executable, "-m", "pytest", "-q", *plugins, f"--rootdir={tmp_path}", str(own)]
    environ = {**os.environ, "HPCRESUME_TOLD_SKIPS": str(told), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert told.read_text() == "2 skipped in test_it.py: no x\n"


def test_a_module_that_is_missing_fails_a_test_in_ci_and_skips_it_elsewhere(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such_a_module here"):
        needed("such_a_module")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no such_a_module here"):
        needed("such_a_module")
    assert needed("json").dumps([]) == "[]"
