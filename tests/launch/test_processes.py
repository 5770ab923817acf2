"""Finding and ending processes by a mark, and the shim that sets signals before a program runs."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time

import pytest

from hpcresume.io.processes import SHIM, MarkedProcess, end_marked, marked_processes, send_signal, start_time
from tests.support.launching import wait_until

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture
def mark():
    value = secrets.token_hex(8)
    yield value
    end_marked("HPCRESUME_TEST", value)


def start(mark: str, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(list(command) or SLEEP, env={**os.environ, "HPCRESUME_TEST": mark}, start_new_session=True)


def test_a_mark_names_the_whole_tree_orphans_included(mark):
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])"
    start(mark, sys.executable, "-c", code).wait()
    child = start(mark)
    wait_until(lambda: len(marked_processes("HPCRESUME_TEST", mark)) == 2)
    assert end_marked("HPCRESUME_TEST", mark) == 2
    assert child.wait() == -signal.SIGKILL
    assert marked_processes("HPCRESUME_TEST", mark) == []


def test_a_mark_is_compared_whole(mark):
    child = start(mark)
    wait_until(lambda: marked_processes("HPCRESUME_TEST", mark))
    assert marked_processes("HPCRESUME_TEST", mark[:-1]) == []
    assert marked_processes("PCRESUME_TEST", mark) == []
    child.kill()
    child.wait()


def test_a_stranger_with_the_same_pid_is_left_alone(mark):
    child = start(mark)
    (found,) = wait_until(lambda: marked_processes("HPCRESUME_TEST", mark))
    stranger = MarkedProcess(found.pid, found.parent, str(int(found.started) + 1), found.environ)
    assert not send_signal(stranger, signal.SIGKILL)
    assert child.poll() is None
    assert send_signal(found, signal.SIGKILL)
    child.wait()
    assert not send_signal(found, signal.SIGKILL)


def test_the_start_time_of_a_process_that_is_gone_is_none():
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    assert start_time(child.pid) is None
    assert start_time(os.getpid()) is not None


def test_the_shim_ends_a_program_when_its_parent_dies(mark):
    code = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); print('up', flush=True); time.sleep(60)"
    shim = [sys.executable, "-S", "-I", str(SHIM), "--end-with-parent", "TERM", "--", *SLEEP]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, *shim], env={**os.environ, "HPCRESUME_TEST": mark}, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    wait_until(lambda: any(str(SHIM) not in _command_line(p.pid) for p in marked_processes("HPCRESUME_TEST", mark)
                           if p.parent == parent.pid))  # fmt: skip
    assert len(marked_processes("HPCRESUME_TEST", mark)) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not marked_processes("HPCRESUME_TEST", mark), 5)


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return str(SHIM)


def test_the_shim_hands_over_exactly_the_mask_it_was_told():
    program = [sys.executable, "-S", "-c", "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"]
    options = ["--only-blocked", "--block", "USR2"]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        done = subprocess.run([sys.executable, "-S", "-I", str(SHIM), *options, "--", *program], capture_output=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    assert done.stdout.decode().strip() == f"[<Signals.SIGUSR2: {int(signal.SIGUSR2)}>]"


def test_the_shim_says_when_there_is_no_such_program():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-S", "-I", str(SHIM), "--", "/nonexistent/x"], capture_output=True)
    assert (done.returncode, b"/nonexistent/x" in done.stderr) == (127, True)
    assert time.monotonic() - began < 20
