"""Whole lives of jobs: the real supervisor, real ranks under a real mpiexec, the scheduler played."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from hpcresume.config.timetable import AtStep, AtTime, EmulatedJob, NodeKill, Preemption, RankKill, SignalPlan
from hpcresume.emulate.job import emulate
from hpcresume.emulate.lines import line
from hpcresume.model import Event
from tests.support.launching import STAND_IN, ledger, left_behind, running, wait_until

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(90)]

USR1_TO_RANKS = SignalPlan(signal.SIGUSR1, to_batch=False, lead=1.0)
USR1_TO_BATCH = SignalPlan(signal.SIGUSR1, to_batch=True, lead=2.0)
STEPS = 120


@pytest.fixture(autouse=True)
def _children_import_what_we_import(monkeypatch):
    import hpcresume

    monkeypatch.setenv("PYTHONPATH", str(Path(hpcresume.__file__).parents[1]))


class Watched:
    """An emulation and everything it said."""

    def __init__(self, run: Path, *entries, steps=STEPS, seconds=0.01, words=(), between=None, **changes) -> None:
        self.run = run
        self.events: list[Event] = []
        self.output = io.BytesIO()
        settings = {"nodes": 2, "tasks_per_node": 1, "requeue_delay": 0.0, "grace": 5.0, "kill_wait": 1.0, **changes}
        command = (*STAND_IN, str(run), str(steps), str(seconds), *words)
        job = EmulatedJob(command, timetable=entries, **settings)
        self.result = emulate(job, emit=self.events.append, between_attempts=between, output=self.output)

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def states(self) -> list[str]:
        return [attempt.state for attempt in self.result.attempts]

    def causes(self) -> list[str]:
        ended = [e for n in self.claimed() for e in ledger(self.run, n) if e["event"] == "ended"]
        return [line["cause"] for line in ended]

    def claimed(self) -> list[int]:
        return [int(path.name) for path in sorted((self.run / "attempts").iterdir())]

    def final(self) -> dict[str, int]:
        return json.loads((self.run / "state.json").read_text())

    def text(self) -> str:
        return self.output.getvalue().decode() + "\n".join(map(line, self.events))


def expected(ranks: int = 2, steps: int = STEPS) -> dict[str, int]:
    """What the stand-in computes without any interruption."""
    total = 0
    for step in range(steps):
        total += sum(rank + step for rank in range(ranks))
    return {"step": steps, "sum": total}


def test_a_job_that_nothing_happens_to_completes(tmp_path):
    watched = Watched(tmp_path, steps=20)
    assert (watched.result.state, watched.result.exit_code, watched.states()) == ("COMPLETED", 0, ["COMPLETED"])
    assert watched.final() == expected(steps=20)
    assert "rank 1 on n1 starts at 0" in watched.text()


@pytest.mark.parametrize("slurm", ["22.05", "24.11"])
def test_a_preempted_job_saves_asks_to_be_requeued_and_finishes(tmp_path, slurm):
    watched = Watched(tmp_path, Preemption(AtStep(33)), slurm=slurm)
    assert watched.states() == ["REQUEUED", "COMPLETED"], watched.text()
    assert (watched.causes(), watched.final()) == (["preempted", "done"], expected())
    deadline = json.loads((tmp_path / "attempts/0001/deadline.json").read_text())
    assert deadline["cause"] == "preempted"
    preempted = next(event for event in watched.events if event.name == "preempt")
    assert preempted.fields["sent"] == "CONT+USR1 to the batch script"
    assert watched.result.attempts[0].fired == ("--preempt step:33",)
    assert ledger(tmp_path, 2)[0]["restart"] == 1


def test_a_signal_without_b_goes_to_every_rank_and_not_to_the_batch_script(tmp_path):
    watched = Watched(tmp_path, Preemption(AtStep(33)), signal=USR1_TO_RANKS, slurm="24.11")
    assert (watched.final(), watched.result.exit_code) == (expected(), 0)
    preempted = next(event for event in watched.events if event.name == "preempt")
    assert preempted.fields["sent"] == "CONT+USR1 to the ranks (2 processes)"
    assert "warning-received" not in [each["event"] for each in ledger(tmp_path, 1)][:2]


def test_without_a_signal_the_ranks_get_term(tmp_path):
    watched = Watched(tmp_path, Preemption(AtStep(33)), signal=None)
    preempted = next(event for event in watched.events if event.name == "preempt")
    assert preempted.fields["sent"] == "CONT+TERM to the ranks (2 processes)"
    assert (watched.final(), watched.result.exit_code) == (expected(), 0)


def test_a_job_that_does_not_listen_is_ended_and_killed_and_still_comes_back(tmp_path):
    watched = Watched(tmp_path, Preemption(AtStep(25)), words=("deaf",), grace=0.3, kill_wait=0.3)
    names = watched.names()
    assert [n for n in names if n in ("preempt", "grace-over", "end-sequence", "kill")] == [
        "preempt", "grace-over", "end-sequence", "kill",
    ]  # fmt: skip
    assert watched.states() == ["PREEMPTED", "COMPLETED"]
    assert watched.result.attempts[0].exit_code == 137
    assert (watched.causes(), watched.final()) == (["preempted", "done"], expected())


def test_grace_zero_means_warning_and_end_at_once(tmp_path):
    watched = Watched(tmp_path, Preemption(AtStep(25)), grace=0.0, kill_wait=3.0)
    at = {event.name: event.fields["at"] for event in watched.events}
    assert at["end-sequence"] - at["preempt"] < 0.1
    assert watched.final() == expected()


def test_before_24_05_a_job_that_just_exits_within_its_grace_never_comes_back(tmp_path):
    options = ("--no-requeue",)
    old = Watched(tmp_path / "old", Preemption(AtStep(33)), slurm="22.05", launch_options=options)
    assert (old.states(), old.result.exit_code) == (["FAILED"], 75)
    new = Watched(tmp_path / "new", Preemption(AtStep(33)), slurm="24.11", launch_options=options)
    assert new.states() == ["PREEMPTED", "COMPLETED"]


def test_the_time_limit_warns_first_and_the_job_requeues_itself(tmp_path):
    watched = Watched(tmp_path, steps=200, seconds=0.03, signal=USR1_TO_BATCH, time_limit=6.0, kill_wait=5.0)
    assert watched.states()[0] == "REQUEUED", watched.text()
    assert set(watched.causes()[:-1]) == {"walltime"}
    assert (watched.final(), watched.result.exit_code) == (expected(steps=200), 0)
    assert "limit-near" in watched.names()


def test_at_the_time_limit_a_deaf_job_is_requeued_before_the_kill_although_slurm_would_not(tmp_path):
    watched = Watched(
        tmp_path, words=("deaf",), signal=None, time_limit=2.5, kill_wait=4.5, steps=100000, max_attempts=1
    )
    assert (watched.states(), watched.result.state) == (["REQUEUED"], "PENDING"), watched.text()
    requeued = [line["result"] for line in ledger(tmp_path, 1) if line["event"] == "requeue"]
    assert requeued == ["accepted"]


def test_slurm_itself_never_requeues_at_the_time_limit(tmp_path):
    options = ("--no-requeue",)
    watched = Watched(tmp_path, words=("deaf",), signal=None, time_limit=2.5, kill_wait=0.3, steps=100000,
                      launch_options=options)  # fmt: skip
    assert (watched.states(), watched.result.exit_code) == (["TIMEOUT"], 137)
    named = [line["cause"] for line in ledger(tmp_path, 1) if line["event"] == "cause"]
    assert named[-1] == "walltime"


def test_a_killed_rank_is_a_crash_that_the_supervisor_requeues(tmp_path):
    watched = Watched(tmp_path, RankKill(AtStep(35), 1))
    assert watched.states() == ["REQUEUED", "COMPLETED"], watched.text()
    assert (watched.causes(), watched.final()) == (["crash", "done"], expected())


@pytest.mark.parametrize("node", [0, 1])
def test_a_lost_node_ends_the_job_and_slurm_starts_it_again(tmp_path, node):
    watched = Watched(tmp_path, NodeKill(AtStep(35), node))
    assert watched.states() == ["NODE_FAIL", "COMPLETED"], watched.text()
    assert (watched.causes(), watched.final()) == (["node-failure", "done"], expected())
    killed = next(event for event in watched.events if event.name == "kill-node")
    assert killed.fields["processes"] == (3 if node == 0 else 1)


def test_a_job_that_may_not_be_requeued_ends_with_come_back(tmp_path):
    watched = Watched(tmp_path, Preemption(AtStep(33)), requeue=False)
    assert watched.result.exit_code == 75
    assert "requeue refused" in watched.text()
    lost = Watched(tmp_path / "lost", NodeKill(AtStep(33), 0), requeue=False)
    assert (lost.states(), lost.result.exit_code) == (["NODE_FAIL"], 137)


def test_everything_at_once_ends_with_the_same_state(tmp_path):
    between: list[int] = []
    watched = Watched(
        tmp_path,
        Preemption(AtStep(20)), RankKill(AtStep(45), 0), NodeKill(AtStep(70), 0), Preemption(AtStep(95)),
        between=lambda end: between.append(end.number),
    )  # fmt: skip
    assert watched.final() == expected(), watched.text()
    assert watched.causes() == ["preempted", "crash", "node-failure", "preempted", "done"]
    assert (between, watched.result.never_fired) == ([1, 2, 3, 4], ())


def test_an_entry_that_never_came_true_is_reported_and_is_no_success(tmp_path):
    watched = Watched(tmp_path, Preemption(AtStep(1000)), Preemption(AtTime(3600)), steps=10)
    assert watched.result.never_fired == ("--preempt step:1000", "--preempt 3600s")
    assert (watched.result.state, watched.result.exit_code) == ("COMPLETED", 78)
    assert watched.names().count("never-fired") == 2


def test_the_limit_of_attempts_leaves_the_job_pending(tmp_path):
    watched = Watched(tmp_path, Preemption(AtStep(33)), max_attempts=1)
    assert (watched.result.state, watched.result.exit_code, len(watched.result.attempts)) == ("PENDING", 75, 1)


def test_a_crash_loop_is_held(tmp_path):
    watched = Watched(tmp_path, words=("crash=5",))
    assert (watched.states(), watched.result.exit_code) == (["REQUEUED", "REQUEUED", "FAILED"], 77)


def test_nothing_is_left_behind_and_logs_are_kept_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCRESUME_TEST_MARK", tmp_path.name)
    made: list[str] = []
    mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **k: made.append(mkdtemp(*a, **k)) or made[-1])
    watched = Watched(tmp_path, NodeKill(AtStep(25), 0), keep_logs=tmp_path / "logs")
    logs = [attempt.log for attempt in watched.result.attempts]
    assert [log.name for log in logs if log] == ["attempt-0001.log", "attempt-0002.log"]
    assert b"".join(log.read_bytes() for log in logs if log) == watched.output.getvalue()
    assert left_behind("HPCRESUME_TEST_MARK", tmp_path.name) == []
    assert len(made) == 2
    assert [path for path in made if os.path.exists(path)] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_emulator_ends_the_job(tmp_path, number):
    words = ("emulate", "-N", "2", "--", *STAND_IN, str(tmp_path), "100000", "0.01")
    with running(*words) as process:
        wait_until(lambda: (tmp_path / "attempts/0001/progress").exists())
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert left_behind("HPCRESUME_TEST_MARK", str(os.getpid()), seconds=10) == []


def test_the_emulator_works_beside_other_threads(tmp_path):
    done = threading.Event()
    worker = threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(done.is_set, True)])
    worker.start()
    try:
        assert Watched(tmp_path, steps=10).result.exit_code == 0
    finally:
        done.set()
        worker.join()


def test_the_command_line_prints_one_json_object(tmp_path):
    words = ("emulate", "--json", "-N2", "-n1", "--preempt", "step:12", "--requeue-delay", "0", "--",
             *STAND_IN, str(tmp_path), "40", "0.01")  # fmt: skip
    import subprocess

    from tests.support.launching import hpcresume
    from tests.support.mpi import child_environment

    done = subprocess.run(hpcresume(*words), env=child_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["state"], answer["exit_code"], answer["never_fired"]) == ("COMPLETED", 0, [])
    assert [attempt["state"] for attempt in answer["attempts"]] == ["REQUEUED", "COMPLETED"]
    assert "preempt n[0-1]: CONT+USR1 to the batch script" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--preempt", "step:x", "--", "true"), 78, "--preempt"),
        (("--kill-rank", "1s:1", "--", "true"), 78, "no rank 1"),
        (("--signal", "B:NOPE", "--", "true"), 78, "--signal"),
        (("--preempt", "5s"), 2, "COMMAND"),
    ],
)
def test_a_wrong_option_is_one_clear_error(words, code, says):
    with running("emulate", *words) as process:
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in out) == (code, False)
    assert says in out


def test_ranks_that_fail_at_once_fail_the_job():
    with running("emulate", "--", sys.executable, "-c", "raise SystemExit(9)") as process:
        process.communicate(timeout=30)
    assert process.returncode == 9
