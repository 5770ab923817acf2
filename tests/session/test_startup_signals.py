"""Signals that come before the session is armed: real processes, started through the shim."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.session.scripts import decision, events, run_script, shimmed
from tests.support.mpi import child_environment

SCRIPT = """
import os, signal, sys
when = sys.argv[2]
def warn(now):
    if now == when:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
warn("first instruction")
import numpy as np
warn("numpy imported")
import hpcresume as hr
warn("hpcresume imported")
weights = np.zeros(3)
session = hr.session(sys.argv[1], every="1000 steps")
warn("session made")
with session as s:
    warn("session open")
    s.track(weights=weights)
    warn("tracked")
    for step in s.steps(20):
        weights += step
        while step == 0 and when != "never" and not s.poll():
            pass
print("done", weights[0])
"""

MOMENTS = ["first instruction", "numpy imported", "hpcresume imported", "session made", "session open", "tracked"]


@pytest.mark.parametrize("when", MOMENTS)
def test_a_warning_during_start_up_is_kept_and_stops_the_run_with_one_save(tmp_path, when):
    run = tmp_path / "run"
    first = run_script(tmp_path, SCRIPT, str(run), when)
    assert first.returncode == 75, first.stderr
    assert len(events(run, 1, "warning")) == len(events(run, 1, "saved")) == 1
    assert decision(run, 1)["decision"] == "come-back"
    second = run_script(tmp_path, SCRIPT, str(run), "never")
    assert (second.returncode, second.stdout) == (0, "done 190.0\n"), second.stderr
    assert len(events(run, 2, "restored")) == 1


def test_without_the_shim_a_signal_before_arming_kills_which_is_why_there_is_one(tmp_path):
    done = run_script(tmp_path, SCRIPT, str(tmp_path / "run"), "first instruction", shim=False)
    assert done.returncode == -signal.SIGUSR1


IMPORTING = """
import sys, time
sys.stdout.write("up")
sys.stdout.flush()
time.sleep(0.3)
import hpcresume as hr
with hr.session(sys.argv[1]) as s:
    s["x"] = 0
    for step in s.steps(10**9):
        s["x"] = step
"""


def test_a_signal_from_outside_while_modules_are_being_imported_is_heard(tmp_path):
    run, script = tmp_path / "run", tmp_path / "train.py"
    script.write_text(IMPORTING)
    argv = shimmed([sys.executable, str(script), str(run)])
    child = subprocess.Popen(argv, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.read(2) == b"up"
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGUSR1)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75, err
    assert len(events(run, 1, "saved")) == 1


def test_under_a_supervisor_the_stop_is_in_a_file_and_the_exit_code_is_zero(tmp_path):
    run, launch = tmp_path / "run", tmp_path / "launch"
    launch.mkdir(mode=0o700)
    env = {"HPCRESUME_SUPERVISED": "1", "HPCRESUME_LAUNCH_DIR": str(launch)}
    done = run_script(tmp_path, SCRIPT, str(run), "tracked", env=env)
    assert (done.returncode, done.stdout) == (0, "")
    import json

    told = json.loads((launch / "decision.json").read_text())
    assert told == decision(run, 1)
    assert told["decision"] == "come-back"
    assert json.loads((launch / "session.json").read_text()) == {"run": str(run), "attempt": 1}
    assert (launch / "session.json").stat().st_mode & 0o777 == 0o600
