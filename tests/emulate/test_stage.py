"""The stand-ins for Slurm's commands: run as the supervisor runs them."""

from __future__ import annotations

import stat
import subprocess
import time
from pathlib import Path

import pytest

from hpcresume.config.timetable import EmulatedJob
from hpcresume.emulate.srun_program import mpiexec_arguments, task_environ
from hpcresume.emulate.stage import JobRecord, Stage
from hpcresume.errors import SlurmError
from hpcresume.slurm import commands
from hpcresume.slurm.commands import Requeue

JOB = EmulatedJob(("python", "train.py"), nodes=2, tasks_per_node=2, job_id=4242)


@pytest.fixture
def stage(monkeypatch):
    stage = Stage(JOB)
    monkeypatch.setenv("PATH", str(stage.programs), prepend=":")
    monkeypatch.setenv("SLURM_JOB_NAME", JOB.job_name)
    stage.publish(JobRecord("RUNNING", start=1.7e9, end=1.7e9 + 60, preempted_at=1.7e9 + 50, restarts=2))
    yield stage
    stage.close()


@pytest.mark.usefixtures("stage")
def test_scontrol_shows_the_job_as_published():
    facts = commands.show_job("4242")
    assert (facts.state, facts.restarts, facts.requeueable) == ("RUNNING", 2, True)
    assert (facts.start, facts.end, facts.preempted_at) == (1.7e9, 1.7e9 + 60, 1.7e9 + 50)


def test_squeue_tells_whether_it_lives(stage):
    assert commands.job_alive("4242") is True
    stage.publish(JobRecord("PENDING"))
    assert commands.job_alive("4242") is False
    assert commands.job_alive("17") is False


def test_a_requeue_is_a_wish_that_is_taken_once(stage):
    assert commands.requeue("4242").result is Requeue.ACCEPTED
    assert [stage.take_requeue(), stage.take_requeue()] == [True, False]


@pytest.mark.usefixtures("stage")
def test_another_job_is_unknown():
    with pytest.raises(SlurmError, match="Invalid job id"):
        commands.show_job("17")
    assert commands.requeue("17").result is Requeue.REFUSED


def test_a_job_that_may_not_be_requeued_is_refused_in_slurms_words(monkeypatch):
    stage = Stage(EmulatedJob(("x",), requeue=False, job_id=4242))
    monkeypatch.setenv("PATH", str(stage.programs), prepend=":")
    stage.publish(JobRecord("RUNNING"))
    answer = commands.requeue("4242")
    assert (answer.result, "disabled" in answer.detail, stage.take_requeue()) == (Requeue.REFUSED, True, False)
    stage.close()


def test_the_directory_is_private_and_goes_away(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "with space; and 'quotes'"))
    (tmp_path / "with space; and 'quotes'").mkdir()
    stage = Stage(JOB)
    assert stat.S_IMODE(stage.directory.stat().st_mode) == 0o700
    stage.publish(JobRecord("RUNNING"))
    shown = subprocess.run([stage.programs / "scontrol", "show", "job", "4242"], capture_output=True, check=True)
    assert b"JobState=RUNNING" in shown.stdout
    assert b"pmix" in subprocess.run([stage.programs / "srun", "--mpi=list"], capture_output=True, check=True).stdout
    stage.close()
    assert not stage.directory.exists()


def test_every_task_has_its_place():
    layout = {"nodes": 2, "tasks_per_node": 2}
    places = [task_environ(layout, 4, rank) for rank in range(4)]
    assert [p["SLURM_PROCID"] for p in places] == ["0", "1", "2", "3"]
    assert [p["SLURM_LOCALID"] for p in places] == ["0", "1", "0", "1"]
    assert [p["SLURMD_NODENAME"] for p in places] == ["n0", "n0", "n1", "n1"]


def test_mpiexec_gets_one_context_a_rank_and_the_users_words_unchanged():
    layout = {"mpiexec": ["/m", "--oversubscribe"], "nodes": 1, "tasks_per_node": 2}
    words = ["env", "--block-signal=USR1", "python", "train.py", "a b", "$(x)", "-n"]
    arguments = mpiexec_arguments(layout, 2, words, {"SLURM_JOB_ID": "1", "HOME": "/h", "TMPDIR": "/t"})
    middle = arguments.index(":")
    assert arguments[:5] == ["/m", "--oversubscribe", "-n", "1", "env"]
    assert arguments[middle - len(words) : middle] == arguments[-len(words) :] == words
    for rank, context in enumerate((arguments[:middle], arguments[middle:])):
        assert {"SLURM_JOB_ID=1", f"SLURM_PROCID={rank}", "TMPDIR=/t"} <= set(context)
        assert "HOME=/h" not in context


def test_times_are_published_in_whole_seconds_and_never_later_than_they_are(stage):
    now = time.time()
    stage.publish(JobRecord("RUNNING", end=now))
    end = commands.show_job("4242").end
    assert end is not None
    assert now - 1 <= end <= now


def test_logs_are_kept_where_asked(tmp_path):
    stage = Stage(EmulatedJob(("x",), keep_logs=tmp_path / "logs"))
    assert stage.log(3) == tmp_path / "logs/attempt-0003.log"
    stage.close()
    assert Path(tmp_path / "logs").is_dir()
