"""The supervisor with real ranks under a real mpiexec, without Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.launching import STAND_IN, hpcresume, ledger, left_behind, running, wait_until
from tests.support.mpi import child_environment

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60)]

MARK = {"HPCRESUME_TEST_MARK": str(os.getpid()), "OMPI_MCA_btl": "^ofi"}


def progressed(run: Path, attempt: int = 1) -> bool:
    path = run / "attempts" / f"{attempt:04d}" / "progress"
    return path.exists() and path.read_bytes()[:1] > b"\x02"


def events(run: Path, attempt: int = 1) -> list[str]:
    return [line["event"] for line in ledger(run, attempt)]


def launch(run: Path, steps: int, seconds: float, *words: str, ranks: int = 2, options: tuple[str, ...] = ()):
    return running(
        "launch", "--ranks", str(ranks), *options, "--", *STAND_IN, str(run), str(steps), str(seconds), *words
    )


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP])
def test_a_warning_reaches_every_rank_and_the_supervisor_says_come_back(tmp_path, number):
    with launch(tmp_path, 1000, 0.02) as process:
        wait_until(lambda: progressed(tmp_path))
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 75, out
    state = json.loads((tmp_path / "state.json").read_text())
    assert 2 < state["step"] < 1000
    lines = ledger(tmp_path, 1)
    assert lines[0]["event"] == "started"
    assert {"warning-received", "forwarded", "child-exit", "cause", "decision", "ended"} <= set(events(tmp_path))
    assert (lines[-1]["event"], lines[-1]["exit_code"], lines[-1]["committed"]) == ("ended", 75, state["step"])


def test_the_scheduler_s_term_is_never_passed_on_as_such(tmp_path):
    with launch(tmp_path, 1000, 0.02) as process:
        wait_until(lambda: progressed(tmp_path))
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    forwarded = [line["signal"] for line in ledger(tmp_path, 1) if line["event"] == "forwarded"]
    assert forwarded == ["SIGUSR1"], out
    assert [line["code"] for line in ledger(tmp_path, 1) if line["event"] == "child-exit"] == [0]


def test_a_deadline_of_the_end_sequence_is_left_for_rank_0(tmp_path):
    with launch(tmp_path, 1000, 0.02) as process:
        wait_until(lambda: progressed(tmp_path))
        before = time.time()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    deadline = json.loads((tmp_path / "attempts/0001/deadline.json").read_text())
    assert before + 4 < deadline["unix"] < before + 10
    assert deadline["source"] == "end sequence"


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.15, 0.2, 0.4])
def test_a_warning_at_any_instant_of_the_start_stops_the_ranks_and_kills_nobody(tmp_path, delay):
    shim = ["env", "--block-signal=USR1"]
    command = [*shim, *hpcresume("launch", "--ranks", "2", "--", *STAND_IN, str(tmp_path), "100000", "0.01")]
    process = subprocess.Popen(command, env=child_environment(MARK), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)  # fmt: skip
    try:
        # env has execed by the time anything can be read of it; before that USR1 would be sbatch's affair.
        wait_until(lambda: b"hpcresume" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
                   and not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"env"))  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGUSR1)
        out, _ = process.communicate(timeout=40)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 75, out
    assert ledger(tmp_path, 1)[-1]["cause"] == "preempted", out
    assert json.loads((tmp_path / "state.json").read_text())["step"] < 1000
    assert left_behind("HPCRESUME_TEST_MARK", MARK["HPCRESUME_TEST_MARK"]) == []


def test_a_thousand_warnings_are_one_stop(tmp_path):
    with launch(tmp_path, 100000, 0.01) as process:
        wait_until(lambda: progressed(tmp_path))
        for _ in range(1000):
            process.send_signal(signal.SIGUSR1)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 75, out
    saved = [line["step"] for line in ledger(tmp_path, 1, "ledger.jsonl")]
    assert len(saved) == len(set(saved))


def test_a_finished_run_exits_zero_and_is_not_started_again(tmp_path):
    with launch(tmp_path, 5, 0.0) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert ledger(tmp_path, 1)[-1] | {"t": 0, "mono": 0} == {
        "t": 0, "mono": 0, "event": "ended", "cause": "done", "exit_code": 0, "committed": 5,
    }  # fmt: skip
    (tmp_path / "DONE").touch()
    with launch(tmp_path, 5, 0.0, options=("--run", str(tmp_path))) as process:
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.count("\n")) == (0, 1)
    assert "DONE" in out
    assert len(list((tmp_path / "attempts").iterdir())) == 1


def test_crashes_without_progress_hold_the_run_at_the_third(tmp_path):
    codes = []
    for _ in range(3):
        with launch(tmp_path, 100, 0.0, "crash=5") as process:
            out, _ = process.communicate(timeout=30)
        codes.append(process.returncode)
    assert codes == [75, 75, 77], out
    assert [ledger(tmp_path, n)[-1]["cause"] for n in (1, 2, 3)] == ["crash"] * 3
    assert "exit code 3" in str([line for line in ledger(tmp_path, 3) if line["event"] == "cause"])


def test_a_command_that_never_opens_a_session_fails_with_its_own_code():
    with running("launch", "--ranks", "2", "--", sys.executable, "-c", "raise SystemExit(9)") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 9, out
    assert "before any session" in out


def test_a_command_that_does_not_exist_fails_once_and_says_so():
    with running("launch", "--mpi", "direct", "--", "/nonexistent/train") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 127
    assert "/nonexistent/train" in out


def test_a_killed_rank_is_a_crash_with_its_signal(tmp_path):
    with launch(tmp_path, 100000, 0.01) as process:
        wait_until(lambda: progressed(tmp_path))
        ranks = _ranks_of(process.pid)
        assert len(ranks) == 2
        os.kill(ranks[-1], signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 75, out
    cause = next(line for line in ledger(tmp_path, 1) if line["event"] == "cause")
    assert cause["cause"] == "crash"
    assert "SIGKILL" in str(cause["evidence"])


def test_when_mpiexec_is_killed_no_rank_lives_on(tmp_path):
    with launch(tmp_path, 100000, 0.01) as process:
        wait_until(lambda: progressed(tmp_path))
        launcher = next(line for line in _children(process.pid))
        os.kill(launcher, signal.SIGKILL)
        process.communicate(timeout=30)
    assert process.returncode == 75
    swept = [line["processes"] for line in ledger(tmp_path, 1) if line["event"] == "swept"]
    assert swept == [2]
    assert left_behind("HPCRESUME_TEST_MARK", MARK["HPCRESUME_TEST_MARK"]) == []


def test_when_the_supervisor_is_killed_no_rank_lives_on_and_the_next_one_tells_of_it(tmp_path):
    with launch(tmp_path, 100000, 0.01) as process:
        wait_until(lambda: progressed(tmp_path) and "started" in events(tmp_path))
        process.kill()
        process.communicate()
    assert left_behind("HPCRESUME_TEST_MARK", MARK["HPCRESUME_TEST_MARK"], seconds=10) == []
    assert "ended" not in events(tmp_path, 1)
    with launch(tmp_path, 30, 0.0) as process:
        process.communicate(timeout=30)
    assert process.returncode == 0
    ended = ledger(tmp_path, 1)[-1]
    assert (ended["event"], ended["cause"], ended["told_by"]) == ("ended", "unknown", 2)
    assert [line["attempt"] for line in ledger(tmp_path, 2) if line["event"] == "predecessor"] == [1]


def test_ctrl_c_saves_and_stops_and_the_second_one_kills(tmp_path):
    with launch(tmp_path, 100000, 0.01) as process:
        wait_until(lambda: progressed(tmp_path))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 75, out
    assert ledger(tmp_path, 1)[-1]["cause"] == "operator"
    with launch(tmp_path, 100000, 0.01, "deaf") as process:
        wait_until(lambda: progressed(tmp_path, 2))
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "warning-received" in events(tmp_path, 2))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert "killed" in out
    assert left_behind("HPCRESUME_TEST_MARK", MARK["HPCRESUME_TEST_MARK"]) == []


def test_one_rank_needs_no_mpiexec(tmp_path):
    program = (
        "import os, signal, sys; print(sorted(k for k in os.environ if k.startswith(('OMPI_COMM', 'HPCRESUME_L'))));"
        "print(signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    )
    with running("launch", "--", sys.executable, "-c", program) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.splitlines()[:2] == ["['HPCRESUME_LAUNCH_DIR']", "True"]


def test_the_launch_directory_is_private_and_gone_afterwards():
    program = "import os; d = os.environ['HPCRESUME_LAUNCH_DIR']; print(d, oct(os.stat(d).st_mode & 0o777))"
    with running("launch", "--", sys.executable, "-c", program) as process:
        out, _ = process.communicate(timeout=30)
    directory, mode = out.splitlines()[0].split()
    assert mode == "0o700"
    assert not Path(directory).exists()


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ranks_of(supervisor: int) -> list[int]:
    return [rank for launcher in _children(supervisor) for rank in _children(launcher)]
