"""What the session's tests share: a run directory, a clean signal state, warnings that have really arrived."""

from __future__ import annotations

import os
import signal
import time

import pytest


@pytest.fixture
def run(tmp_path):
    """Where a run may live; not made yet."""
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def clean_signals(monkeypatch):
    """Each test begins with default handlers and nothing blocked, outside any job, and leaves it so."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "HPCRESUME_", "OMPI_", "PMI"))]:
        monkeypatch.delenv(name)
    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP]

    def reset():
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    reset()
    yield
    reset()


@pytest.fixture
def warn():
    """Send this process a real signal, and return when the session has noted it."""

    def send(session, number=signal.SIGUSR1):
        os.kill(os.getpid(), number)
        end = time.monotonic() + 10
        while not session.poll():
            assert time.monotonic() < end, "the warning never arrived"
            time.sleep(0.0005)

    return send
