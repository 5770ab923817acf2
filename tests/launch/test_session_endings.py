"""Real sessions under `hpcresume launch`: how each of their endings becomes an exit code, a decision, and a requeue."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.launching import hpcresume, ledger, left_behind, wait_until
from tests.support.mpi import child_environment

pytestmark = [pytest.mark.timeout(90)]

MARK = {"HPCRESUME_TEST_MARK": f"endings-{os.getpid()}", "OMPI_MCA_btl": "^ofi"}

TRAINING = """
import sys, time
import numpy as np
import hpcresume as hr
run, what, steps, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
weights = np.zeros(3 if what != "reshaped" else 4)
with hr.session(run, every="nonsense" if what == "option" else "1000 steps", reaction=0) as s:
    s.track(weights=weights)
    for step in s.steps(steps):
        if what == "late-track":
            s.track(more=1)
        time.sleep(pause)
        weights += step
"""

SCONTROL = """#!{python} -SI
import os, sys
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if "show" in sys.argv:
    print({job!r})
"""
JOB = (
    "JobId=7 JobName=train UserId=root(0) GroupId=root(0) JobState={state} Reason={reason} Requeue=1 "
    "Restarts={restarts} RunTime=00:00:10 TimeLimit=00:01:00 "
    "StartTime=2026-01-01T00:00:00 EndTime=2026-01-01T00:01:00 PreemptTime=None Command=x"
)


@pytest.fixture
def training(tmp_path):
    """The script."""
    path = tmp_path / "train.py"
    path.write_text(TRAINING)
    return path


@pytest.fixture
def slurm(tmp_path):
    """Environment of a Slurm job with a scontrol that notes what it was asked, and the notes."""

    def make(restarts=0, state="COMPLETING", reason="TimeLimit"):
        folder, log = tmp_path / f"bin{restarts}", tmp_path / "scontrol.log"
        folder.mkdir(exist_ok=True)
        log.touch()
        program = folder / "scontrol"
        job = JOB.format(state=state, reason=reason, restarts=restarts)
        program.write_text(SCONTROL.format(python=sys.executable, log=str(log), job=job))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        variables = {
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NAME": "train",
            "SLURM_RESTART_COUNT": str(restarts),
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        }
        return variables, log

    return make


def command(*words: object, ranks: int = 1, options: tuple[str, ...] = ()) -> list[str]:
    starter = "direct" if ranks == 1 else "mpiexec"
    launch = ("launch", "--mpi", starter, "--ranks", str(ranks), *options, "--")
    return hpcresume(*launch, sys.executable, *map(str, words))


def launch(*words: object, env: dict[str, str] | None = None, **more) -> subprocess.CompletedProcess[str]:
    """Start it and wait for its end."""
    return subprocess.run(
        command(*words, **more),
        env=child_environment({**MARK, **(env or {})}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def requeues(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if "requeue" in line]


@pytest.mark.parametrize(
    ("what", "code"), [("late-track", 64), ("reshaped", 65), ("directory", 73), ("option", 78)], ids=str
)
def test_an_error_of_ours_that_nobody_catches_is_the_exit_code_and_no_reason_to_requeue(
    tmp_path, training, slurm, what, code
):
    run = tmp_path / "run"
    env, log = slurm(state="RUNNING", reason="None")
    if what == "reshaped":
        assert launch(training, run, "", 2, 0).returncode == 0
        (run / "DONE").unlink()
    if what == "directory":
        (tmp_path / "run").write_text("a file")
    done = launch(training, run, what, 4, 0, env=env, options=("--json",))
    assert done.returncode == code, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["decision"], outcome["requeued"]) == ("hold", False)
    assert requeues(log) == []
    assert done.stderr.count("Traceback") == 1


@pytest.mark.mpi
@pytest.mark.parametrize(("what", "code"), [("late-track", 64), ("option", 78)], ids=str)
def test_so_it_is_with_two_ranks_under_mpiexec(tmp_path, training, what, code):
    done = launch(training, tmp_path / "run", what, 4, 0, ranks=2, options=("--json",))
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["decision"] == "hold"


def test_the_restart_of_a_held_job_ends_at_once_until_it_is_released(tmp_path, training, slurm):
    """Since 24.05 Slurm starts a job again that exits within the grace of a preemption, whatever its exit code."""
    run = tmp_path / "run"
    first = launch(training, run, "late-track", 4, 0, env=slurm(state="RUNNING", reason="None")[0])
    assert first.returncode == 64, first.stderr
    env, log = slurm(1, state="RUNNING", reason="None")
    for options in ((), ("--run", str(run))):
        again = launch(training, run, "", 4, 0, env=env, options=options)
        assert again.returncode == 77, again.stderr
        assert "held" in again.stderr
        assert ("hpcresume: " in again.stderr) == (not options), "told where the run is, no rank is started at all"
        assert os.listdir(run / "attempts") == ["0001"]
    assert requeues(log) == []
    released = launch(training, run, "", 4, 0, env=env, options=("--release",))
    assert released.returncode == 0, released.stderr
    assert (run / "DONE").exists()


NO_SPACE = """
import errno, os, sys
from hpcresume.io.files import Files, substituted
class Full(Files):
    def open(self, path, flags, mode=0o600):
        if flags & os.O_CREAT and str(path).startswith(sys.argv[1]) and full:
            raise OSError(errno.ENOSPC, "no space left", str(path))
        return super().open(path, flags, mode)
    def append(self, fd, data):
        if full:
            raise OSError(errno.ENOSPC, "no space left")
        return super().append(fd, data)
full = False
import hpcresume as hr
with substituted(Full()), hr.session(sys.argv[1], every="2 steps", save_failures=0) as s:
    s["x"] = 0
    for step in s.steps(10):
        full = step == 1 or full
"""


def test_a_run_whose_disk_is_full_for_every_record_is_held_all_the_same(tmp_path, slurm):
    """The decision reaches the supervisor through its own directory: without it the job would come back for ever."""
    script = tmp_path / "full.py"
    script.write_text(NO_SPACE)
    env, log = slurm(state="RUNNING", reason="None")
    done = launch(script, tmp_path / "run", env=env, options=("--when-held", "end"))
    assert done.returncode == 77, done.stderr
    assert not (tmp_path / "run/attempts/0001/decision.json").exists()
    assert requeues(log) == []


LINGERING = TRAINING.replace("import sys, time", "import atexit, sys, time\natexit.register(time.sleep, 60)")


def test_a_rank_that_lingers_after_the_commit_does_not_cost_the_requeue(tmp_path, slurm):
    """KILL comes 5 s after the scheduler's TERM, and who is killed then has asked for nothing."""
    script, run = tmp_path / "train.py", tmp_path / "run"
    script.write_text(LINGERING)
    env, log = slurm()
    process = subprocess.Popen(
        command(script, run, "", 100_000, 0.01),
        env=child_environment({**MARK, **env}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        progress = run / "attempts/0001/progress"
        wait_until(lambda: progress.exists() and progress.read_bytes()[:1] > b"\x02")
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        wait_until(lambda: requeues(log), 30)
        assert time.monotonic() - told < 5, "too late: the KILL would have come first"
        assert requeues(log)[0].endswith("7")
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=20)[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
    assert process.returncode == 75, err
    assert {"lingering", "requeue", "ended"} <= {line["event"] for line in ledger(run, 1)}
    assert len(list((run / "generations").iterdir())) == 1
    assert left_behind("HPCRESUME_TEST_MARK", MARK["HPCRESUME_TEST_MARK"]) == []


CLOSING = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
FILLING = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh"]


@pytest.mark.parametrize("stream", [CLOSING, FILLING], ids=["closed", "full"])
@pytest.mark.parametrize("options", [None, (), ("--json",)], ids=["alone", "launched", "launched with --json"])
def test_nobody_needs_a_working_stderr_to_finish(tmp_path, training, stream, options):
    words = (training, tmp_path / "run", "", 4, 0)
    argv = [sys.executable, *map(str, words)] if options is None else command(*words, options=options)
    done = subprocess.run(
        [*stream, *argv],
        env=child_environment(MARK),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert not options or json.loads(done.stdout)["decision"] == "done"
    assert (tmp_path / "run" / "DONE").exists()


@pytest.mark.mpi
@pytest.mark.parametrize("stream", [CLOSING, FILLING], ids=["closed", "full"])
def test_nor_do_two_ranks_under_mpiexec(tmp_path, training, stream):
    argv = command(training, tmp_path / "run", "", 4, 0, ranks=2)
    done = subprocess.run(
        [*stream, *argv], env=child_environment(MARK), stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "run" / "DONE").exists()


@pytest.mark.parametrize("stream", [CLOSING, FILLING], ids=["closed", "full"])
def test_nobody_needs_a_working_stderr_to_come_back(tmp_path, training, slurm, stream):
    run = tmp_path / "run"
    env, log = slurm()
    process = subprocess.Popen(
        [*stream, *command(training, run, "", 100_000, 0.01)], env=child_environment({**MARK, **env}),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        progress = run / "attempts/0001/progress"
        wait_until(lambda: progress.exists() and progress.read_bytes()[:1] > b"\x02")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 75
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert len(requeues(log)) == 1
    assert json.loads((run / "attempts/0001/decision.json").read_text())["decision"] == "come-back"
    assert [line["exit_code"] for line in ledger(run, 1) if line["event"] == "ended"] == [75]
