"""Runs `hpcresume launch` and `hpcresume emulate` as a user would, and looks at what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.mpi import child_environment

__all__ = ["STAND_IN", "hpcresume", "ledger", "left_behind", "running", "wait_until"]

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


def hpcresume(*words: str) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "hpcresume", *words]


@contextmanager
def running(*words: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A verb in the background; killed at the end of the block if it still runs."""
    process = subprocess.Popen(
        hpcresume(*words),
        env=child_environment({"HPCRESUME_TEST_MARK": str(os.getpid()), "OMPI_MCA_btl": "^ofi", **(env or {})}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until `condition` gives something true; return it."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)
    return value


def ledger(run: Path, attempt: int, name: str = "supervisor.jsonl") -> list[dict[str, Any]]:
    """Lines of one of an attempt's ledgers."""
    path = run / "attempts" / f"{attempt:04d}" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def left_behind(mark: str, value: str | None = None, *, seconds: float = 3.0) -> list[str]:
    """Command lines of processes that have `mark` in their environment, once the dying have had some time."""
    until = time.monotonic() + seconds
    while (found := _marked(mark, value)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _marked(mark: str, value: str | None) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            got = process.environ().get(mark)
            alive = process.status() != psutil.STATUS_ZOMBIE
            if got is not None and (value is None or got == value) and alive and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
