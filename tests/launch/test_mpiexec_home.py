"""Open MPI without HOME: found a home, so that it starts at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hpcresume.errors import ConfigError
from hpcresume.io import mpiexec
from tests.support.mpi import child_environment

RANK = "from mpi4py import MPI; print(MPI.COMM_WORLD.size, flush=True)"


def homeless() -> dict[str, str]:
    """The environment of a child that has no HOME, as under cron and in some containers."""
    return {name: value for name, value in child_environment().items() if name != "HOME"}


@pytest.mark.mpi
@pytest.mark.parametrize("home", [None, ""])
def test_ranks_start_without_a_home(home: str | None, tmp_path: Path) -> None:
    environ = homeless() if home is None else {**homeless(), "HOME": home}
    words = ["launch", "--mpi", "mpiexec", "--ranks", "2", "--", sys.executable, "-c", RANK]
    done = subprocess.run(
        [sys.executable, "-m", "hpcresume", *words],
        env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "2"]


def test_a_home_that_is_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert "HOME" not in mpiexec.open_mpi_variables()


def test_a_user_without_a_home_gets_a_private_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Nobody:
        pw_dir = str(tmp_path / "nonexistent")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(mpiexec.pwd, "getpwuid", lambda _: Nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home = Path(mpiexec.open_mpi_variables()["HOME"])
    assert home.is_dir()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert mpiexec.open_mpi_variables()["HOME"] == str(home), "the same again"
    home.chmod(0o777)
    with pytest.raises(ConfigError, match="not only yours") as caught:
        mpiexec.open_mpi_variables()
    assert caught.value.hint
    home.rmdir()
    home.symlink_to(os.sep)
    with pytest.raises(ConfigError):
        mpiexec.open_mpi_variables()
