"""A command that takes too long, also one that cannot be killed, costs its time and no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from hpcresume.io import bounded_run
from hpcresume.io.bounded_run import LAST, run_bounded

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_what_it_prints_and_its_exit_code():
    show = "import os, sys; print(os.environ['WORD'], sys.stdin.read() == '');"
    code = show + "print('err', file=sys.stderr); sys.exit(3)"
    done = run_bounded([sys.executable, "-c", code], 30, {**os.environ, "WORD": "a b"})
    assert (done.returncode, done.stdout, done.stderr) == (3, b"a b True\n", b"err\n")


@pytest.mark.parametrize(("words", "error"), [(["/no/such"], OSError), (["true", "a\0b"], ValueError)])
def test_what_cannot_be_run(words, error):
    with pytest.raises(error):
        run_bounded(words, 5)


def test_one_that_takes_too_long_is_killed_and_reaped(monkeypatch):
    started = remember(monkeypatch)
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run_bounded(SLEEP, 0.3)
    assert time.monotonic() - began < 0.3 + LAST
    assert started[0].returncode == -signal.SIGKILL


def test_one_that_cannot_be_killed_is_left_and_reaped_once_it_goes(monkeypatch):
    """Uninterruptible sleep cannot be had without a broken filesystem: here the KILL does not arrive."""
    started = remember(monkeypatch)
    kill = subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _self: None)
    monkeypatch.setattr(bounded_run, "LAST", 0.2)
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run_bounded(SLEEP, 0.3)
    assert time.monotonic() - began < 5
    assert bounded_run._left == started
    kill(started[0])
    deadline = time.monotonic() + 20
    while bounded_run._left and time.monotonic() < deadline:
        run_bounded(["true"], 10)
    assert (bounded_run._left, started[0].returncode) == ([], -signal.SIGKILL)


def remember(monkeypatch) -> list[subprocess.Popen]:
    started = []
    real = subprocess.Popen.__init__

    def init(self, words, **options):
        real(self, words, **options)
        if list(words) == SLEEP:
            started.append(self)

    monkeypatch.setattr(subprocess.Popen, "__init__", init)
    return started
