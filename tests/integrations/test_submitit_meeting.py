"""Where tasks of one submitit job agree without a launcher: a port on this machine, the end of an attempt in Slurm."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from hpcresume.errors import RanksMissingError
from hpcresume.integrations import submitit_local
from hpcresume.integrations.submitit_local import STARTS, join_local_ranks
from hpcresume.integrations.submitit_slurm import EndSequence, wait_for_rank_0
from hpcresume.io.paths import AttemptPaths


def task(rank: int, starts: int = 0, job: int = 4711) -> dict[str, str]:
    return {"SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": str(rank), "SUBMITIT_LOCAL_JOB_ID": str(job),
            STARTS: str(starts)}  # fmt: skip


def port(environ: dict[str, str], folder) -> int:
    join_local_ranks(environ, folder)
    return int(environ["MASTER_PORT"])


def test_all_tasks_get_the_port_that_the_first_one_found_free(tmp_path):
    wanted = port(task(0), tmp_path)
    with socket.socket() as taken:
        taken.bind(("", wanted))
        taken.listen()
        found = port(task(0), tmp_path)
        assert found != wanted, "another job listens there"
        second = task(1)
        assert port(second, tmp_path) == found
    assert (second["RANK"], second["WORLD_SIZE"], second["MASTER_ADDR"]) == ("1", "2", "127.0.0.1")
    assert (tmp_path / "4711_meeting.json").stat().st_mode & 0o777 == 0o600
    assert port(task(0, starts=1), tmp_path) != wanted, "a peer must not meet the store of the start before"


def test_a_port_of_an_older_start_or_of_a_dead_first_task_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(submitit_local, "PATIENCE", 0.2)
    join_local_ranks(task(0), tmp_path)
    meeting = tmp_path / "4711_meeting.json"
    with pytest.raises(RanksMissingError, match="where to meet"):
        join_local_ranks(task(1, starts=1), tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    facts = json.loads(meeting.read_text())
    for wrong in ({**facts, "pid": dead.pid}, {**facts, "started": "1"}, {**facts, "port": "many"}, [], {}):
        meeting.write_text(json.dumps(wrong))
        with pytest.raises(RanksMissingError):
            join_local_ranks(task(1), tmp_path)


def test_a_port_that_comes_late_is_waited_for(tmp_path):
    timer = threading.Timer(0.3, join_local_ranks, (task(0), tmp_path))
    timer.start()
    assert port(task(1), tmp_path) > 0
    timer.join()


@pytest.mark.parametrize("more", [{"SUBMITIT_LOCAL_NTASKS": "1"}, {"RANK": "5"}])
def test_one_task_and_a_users_own_ranks_are_left_as_they_are(tmp_path, more):
    environ = task(0) | more
    join_local_ranks(environ, tmp_path)
    assert "MASTER_PORT" not in environ
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def end():
    """As in a task; afterwards TERM means to this process what it did before."""
    handler, mask = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield EndSequence()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # throws away what is pending
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGTERM, handler)


def later(seconds: float, deed, *arguments: object) -> None:
    threading.Timer(seconds, deed, arguments).start()


def test_the_other_tasks_wait_as_long_as_rank_0_needs_and_leave_without_an_error_once_slurm_has_agreed(tmp_path, end):
    attempt = AttemptPaths(tmp_path)
    later(0.5, attempt.supervisor.write_text, json.dumps({"event": "requeue", "result": "accepted"}) + "\n")
    main = threading.main_thread().ident
    later(1.2, signal.pthread_kill, main, signal.SIGTERM)  # as Slurm then ends the step
    began = time.monotonic()
    assert wait_for_rank_0(tmp_path / "result", attempt, end, 20) == ""
    assert time.monotonic() - began > 0.9, "it must not leave before the end comes"


def test_the_other_tasks_say_why_when_rank_0_does(tmp_path, end):
    attempt = AttemptPaths(tmp_path)
    attempt.supervisor.write_text(json.dumps({"event": "requeue", "result": "refused"}) + "\n")
    later(0.5, (tmp_path / "result").touch)
    assert wait_for_rank_0(tmp_path / "result", attempt, end, 20) == "task 0 says why"
    assert "has not said within 0.3 s" in wait_for_rank_0(tmp_path / "none", attempt, end, 0.3)
    assert "has not said" in wait_for_rank_0(None, None, end, 0.1)


def test_the_other_tasks_stay_as_long_as_rank_0_waits_for_slurm_to_end_the_job(tmp_path, end):
    """Slurm, which cannot be told, starts a preempted job again if it is still there at the end of its grace."""
    attempt = AttemptPaths(tmp_path)
    said = {"event": "awaits-end", "until": time.time() + 1.0}
    attempt.supervisor.write_text(json.dumps(said) + "\n")
    began = time.monotonic()
    assert "has not said" in wait_for_rank_0(None, attempt, end, 0.3)
    assert 1.2 < time.monotonic() - began < 5, "until then, and as long after it as for any other word"
    main = threading.main_thread().ident
    attempt.supervisor.write_text(json.dumps({**said, "until": time.time() + 60}) + "\n")
    later(0.8, signal.pthread_kill, main, signal.SIGTERM)
    assert wait_for_rank_0(None, attempt, end, 0.3) == ""


def test_the_end_itself_needs_no_words(tmp_path, end):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    assert wait_for_rank_0(tmp_path / "none", None, end, 20) == ""


@pytest.mark.parametrize("rank", [0, 1])
def test_an_end_that_another_thread_takes_is_noticed_too(rank):
    """A task has threads in which TERM is not blocked, and they get it while the main thread is busy elsewhere: it
    waited for another one then, until the KILL.
    """
    program = """
import os, signal, sys, threading, time
from hpcresume.integrations.submitit_slurm import EndSequence, await_end, wait_for_rank_0

threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
end = EndSequence()
os.kill(os.getpid(), signal.SIGTERM)
began = time.monotonic()
await_end(None, end, 20) if sys.argv[1] == "0" else wait_for_rank_0(None, None, end, 20)
print(time.monotonic() - began < 5)
"""
    command = [sys.executable, "-c", program, str(rank)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40)
    assert done.stdout == "True\n", done.stdout + done.stderr
