"""The script that makes a second Slurm: it is quick where that is there, and says why where it may not make it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.slurm.cluster import root_2411

pytestmark = pytest.mark.checkout

SCRIPT = str(ROOT / "tools" / "install_slurm_2411.sh")


def install(programs: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it with programs of ours first on PATH."""
    environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **more}
    return subprocess.run([SCRIPT], env=environ, capture_output=True, text=True, timeout=30)


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_root_that_was_made_before_is_only_named(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".complete").touch()
    ended = install(tmp_path, HPCRESUME_SLURM_ROOT=str(tmp_path / "root"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{tmp_path}/root\n", "")


def test_somebody_who_is_not_root_is_told_so_and_nothing_is_made(tmp_path):
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "sudo", "exit 1")
    ended = install(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert ended.returncode == 1
    assert "making its root takes root's rights" in ended.stderr
    assert not (tmp_path / "cache").exists()


def test_a_debootstrap_that_fails_leaves_its_log_and_no_half_made_root(tmp_path):
    program(tmp_path, "id", "echo 0")
    program(tmp_path, "debootstrap", 'mkdir -p "$4/usr"; echo "E: no such mirror: $5"; exit 1')
    ended = install(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"), HPCRESUME_MIRROR="http://mirror.example/debian")
    assert ended.returncode == 1
    assert "E: no such mirror: http://mirror.example/debian" in ended.stderr
    assert [path.name for path in (tmp_path / "cache" / "hpcresume").iterdir()] == ["slurm-24.11.log"]


def test_a_second_slurm_that_is_missing_skips_its_tests_by_hand_and_fails_them_in_ci(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCRESUME_SLURM_ROOT", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no Slurm 24\.11"):
        root_2411()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"in CI this may not be skipped: no Slurm 24\.11"):
        root_2411()
    (tmp_path / ".complete").touch()
    assert root_2411() == tmp_path
