"""`import hpcresume as hr`: the names that users type, and what importing them costs."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pickle
import statistics
import subprocess
import sys

import pytest

import hpcresume as hr
from tests.architecture.tree import parsed

PROMISED = {
    "EveryRank", "Generation", "Generations", "GlobalSlice", "Loaded", "RankLocal", "Resumable", "RunFinished",
    "RunHeld", "Session", "Stopped", "__version__", "errors", "load", "read_tensor", "save", "session", "submit",
}  # fmt: skip
HEAVY = {"torch", "h5py", "mpi4py", "numpy"}
IMPORT_BUDGET = 0.080
HELP_BUDGET = 0.250


def fresh(program: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_all_is_sorted_and_complete():
    assert hr.__all__ == sorted(hr.__all__)
    assert set(hr.__all__) == PROMISED


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_every_promised_name_resolves_and_is_listed_by_dir(name):
    assert getattr(hr, name) is not None
    assert name in dir(hr)


def test_type_checkers_and_the_running_program_see_the_same_homes():
    conditions = [n for n in parsed("hpcresume").body if isinstance(n, ast.If)]
    for node in (n for n in conditions if ast.unparse(n.test) == "TYPE_CHECKING"):
        for line in node.body:
            for alias in line.names:
                expected = line.module if line.module != "hpcresume" else "hpcresume.errors"
                assert hr._HOMES.get(alias.name, "hpcresume.errors") == expected


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        hr.sesion  # noqa: B018


def test_session_and_submit_stay_functions_after_their_subpackages_were_imported():
    importlib.import_module("hpcresume.session")
    assert callable(hr.session)
    assert fresh(
        "import hpcresume.session, hpcresume; from hpcresume import session;"
        "print(callable(session) and hpcresume.session is session)"
    ).strip() == "True"  # fmt: skip
    assert fresh(
        "import hpcresume.submit, hpcresume; from hpcresume import submit;"
        "print(callable(submit) and hpcresume.submit is submit)"
    ).strip() == "True"  # fmt: skip


@pytest.mark.parametrize("program", ["import hpcresume", "from hpcresume.cli.main import main; main(['--help'])"])
def test_neither_the_import_nor_the_help_loads_anything_heavy(program):
    loaded = fresh(f"import sys, json; {program}; print(); print(json.dumps(sorted(sys.modules)))")
    names = json.loads(loaded.splitlines()[-1])
    assert "hpcresume" in names
    assert HEAVY.isdisjoint(names)


@pytest.mark.alone
def test_importing_takes_at_most_80_ms():
    program = "import time; t = time.perf_counter(); import hpcresume; print(time.perf_counter() - t)"
    assert statistics.median(float(fresh(program)) for _ in range(7)) <= IMPORT_BUDGET


@pytest.mark.alone
def test_help_takes_at_most_250_ms_from_start_to_exit():
    assert statistics.median(seconds_of_help() for _ in range(7)) <= HELP_BUDGET


def seconds_of_help() -> float:
    """CPU seconds of one `hpcresume --help`, interpreter and exit included.

    CPU and not wall time: the rest of the machine may be busy, and nothing in here waits.
    """
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "hpcresume", "--help"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return usage.ru_utime + usage.ru_stime


def test_the_package_travels_between_processes_by_its_name():
    """A function of a script's own `__main__` that uses `hr` is sent with its globals (submitit, Dask, joblib)."""
    cloudpickle = pytest.importorskip("cloudpickle")
    for pickler in (pickle, cloudpickle):
        sent = pickler.dumps(hr)
        assert pickle.loads(sent) is hr
        assert len(sent) < 200
