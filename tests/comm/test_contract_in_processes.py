"""The contract of ranks, kept by the backends of several processes: real mpiexec, and gloo.

Each group of processes is started once and runs all checks; pytest then shows one test a check.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hpcresume.testing.ranks_contract import RanksContract
from tests.support.mpi import mpiexec
from tests.support.processes import run_together, torch_variables

DRIVER = str(Path(__file__).with_name("contract_driver.py"))


@functools.cache
def outcomes(backend: str, size: int) -> tuple[list[dict[str, str]], str]:
    """What each rank reported, by check; and how the processes ended, "" if well."""
    with tempfile.TemporaryDirectory() as directory:
        argv = [sys.executable, "-W", "error", DRIVER, backend, directory]
        try:
            if backend == "mpi":
                done = [mpiexec(size, argv, timeout=60)]
            else:
                done = run_together(argv, torch_variables(size), timeout=60)
            ended = "".join(f"exit {each.returncode}: {each.stderr}" for each in done if each.returncode)
        except subprocess.TimeoutExpired as error:
            ended = str(error)
        reports = [Path(directory, f"{rank}.jsonl") for rank in range(size)]
        lines = [path.read_text().splitlines() if path.exists() else [] for path in reports]
    return [dict(json.loads(line) for line in each) for each in lines], ended


class ProcessesContract(RanksContract):
    backend = ""
    size = 0

    def run_check(self, name: str) -> None:
        reports, ended = outcomes(self.backend, self.size)
        assert [report.get(name, f"not run, {ended}") for report in reports] == [""] * self.size

    def test_the_processes_ended_well(self) -> None:
        assert outcomes(self.backend, self.size)[1] == ""


@pytest.mark.mpi
class TestMpiOf2(ProcessesContract):
    backend, size = "mpi", 2


@pytest.mark.mpi
class TestMpiOf4(ProcessesContract):
    backend, size = "mpi", 4


class TestTorchOf2(ProcessesContract):
    backend, size = "torch", 2
