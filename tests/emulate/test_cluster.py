"""The cluster as users meet it: from Python, in a shell, under submitit, with scripts; what it costs and leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.emulate.settings import default_partitions
from hpcresume.errors import ConfigError, SlurmError
from tests.support.launching import hpcresume, left_behind, wait_until
from tests.support.mpi import child_environment

pytestmark = pytest.mark.timeout(120)

TRAINING = Path(__file__).with_name("numpy_training.py")


def run(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A verb, as a user types it."""
    env = child_environment({"HPCRESUME_TEST_MARK": str(os.getpid()), **environ})
    return subprocess.run(
        hpcresume(*words), env=env, cwd=cwd, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL
    )


def script(folder: Path, text: str, *directives: str, name: str = "job.sbatch") -> str:
    lines = ["#!/bin/bash", *(f"#SBATCH {line}" for line in directives), text, ""]
    (folder / name).write_text("\n".join(lines))
    return name


# ---- figures


@pytest.mark.alone
def test_a_cluster_starts_and_ends_within_half_a_second():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with EmulatedCluster(nodes=64) as cluster:
            assert cluster.run("sinfo", "-h", "-o", "%D").stdout.split() == ["64", "64"]
        seconds.append(time.perf_counter() - start)
    print(f"start, sinfo and end: {min(seconds):.3f} s")
    assert min(seconds) < 0.5


def test_a_thousand_jobs_go_through_without_loss(tmp_path):
    start = time.perf_counter()
    with EmulatedCluster(nodes=4, cpus=8) as cluster:
        text = f"echo $SLURM_ARRAY_TASK_ID >> {tmp_path}/array"
        cluster.submit("--array=0-499", "-o", "/dev/null", "--wrap", text)
        for number in range(500):
            cluster.submit("-o", "/dev/null", "--wrap", f"echo {number} >> {tmp_path}/single")
        cluster.wait(timeout=100)
        jobs = cluster.jobs()
    print(f"1000 jobs in {time.perf_counter() - start:.1f} s")
    assert {(job.state, job.restarts, len(job.attempts)) for job in jobs} == {("COMPLETED", 0, 1)}
    for name in ("array", "single"):
        assert sorted(map(int, (tmp_path / name).read_text().split())) == list(range(500))


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCRESUME_TEST_MARK", tmp_path.name)
    text = "setsid sleep 100 & env -i sleep 100 & srun --mpi=none sleep 100 & srun sleep 100"
    with EmulatedCluster(nodes=2, cpus=2) as cluster:
        home = cluster.engine.home
        places = [home.directory, home.shared_memory]
        job = cluster.submit("-N2", "-o", str(tmp_path / "log"), "--wrap", text)
        wait_until(lambda: len(left_behind("HPCRESUME_TEST_MARK", tmp_path.name, seconds=0)) > 5)
        assert cluster.job(job).state == "RUNNING"
        assert [place.stat().st_mode & 0o777 for place in places if place is not None] == [0o700, 0o700]
    assert left_behind("HPCRESUME_TEST_MARK", tmp_path.name) == []
    assert [place for place in places if place is not None and place.exists()] == []


def test_even_a_kill_9_of_the_emulator_leaves_nothing(tmp_path):
    name = script(tmp_path, "echo $OMPI_MCA_btl_sm_backing_directory > shm; sleep 100 & trap '' TERM; sleep 100", "-N1")
    env = child_environment({"HPCRESUME_TEST_MARK": tmp_path.name, "TMPDIR": str(tmp_path)})
    process = subprocess.Popen(
        hpcresume("emulate", "--", name), env=env, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )

    def sleepers() -> int:
        return sum("sleep 100" in each for each in left_behind("HPCRESUME_TEST_MARK", tmp_path.name, seconds=0))

    wait_until(lambda: sleepers() == 2)
    memory = Path((tmp_path / "shm").read_text().strip())
    assert memory.is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert left_behind("HPCRESUME_TEST_MARK", tmp_path.name, seconds=10) == []
    wait_until(lambda: not memory.exists() and not list(tmp_path.glob("hpcresume-*")))


# ---- from Python


def test_a_job_of_the_high_partition_takes_the_nodes_and_the_other_comes_back(tmp_path):
    with EmulatedCluster(nodes=2, cpus=1, requeue_delay=0.1, partitions=default_partitions(5.0)) as cluster:
        text = "trap 'exit 0' USR1; echo life $SLURM_RESTART_COUNT; [ $SLURM_RESTART_COUNT ] || { sleep 60 & wait; }"
        low = cluster.submit(
            "-N2", "--signal=B:USR1@30", "--open-mode=append", "-o", str(tmp_path / "low"), "--wrap", text
        )
        wait_until(lambda: (tmp_path / "low").exists() and "life" in (tmp_path / "low").read_text())
        other = cluster.submit("-N1", "-o", "/dev/null", "--wrap", "true")
        high = cluster.submit("-p", "high", "-N2", "-o", "/dev/null", "--wrap", "sleep 0.5")
        state = cluster.wait(low, high, other, timeout=30)
        assert (state.state, state.restarts, [a.state for a in state.attempts]) == (
            "COMPLETED",
            1,
            ["PREEMPTED", "COMPLETED"],
        )
        starts = {job.id: job.attempts[-1].start for job in cluster.jobs()}
        assert starts[high] < min(starts[low], starts[other])
    assert (tmp_path / "low").read_text() == "life\nlife 1\n"


def test_what_the_cluster_cannot_do_is_said(tmp_path, monkeypatch):
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        with pytest.raises(SlurmError, match="Invalid partition"):
            cluster.submit("-p", "nope", "--wrap", "true")
        with pytest.raises(SlurmError, match="no node"):
            cluster.kill_node("n9")
        with pytest.raises(SlurmError, match="no job"):
            cluster.preempt("17")
        job = cluster.submit("-N5", "-o", "/dev/null", "--wrap", "true")
        wait_until(lambda: cluster.job(job).reason == "PartitionConfig")
        with pytest.raises(SlurmError, match=r"not over after .* PENDING \(PartitionConfig\)"):
            cluster.wait(job, timeout=0.1)
        monkeypatch.setenv("HPCRESUME_EMULATOR", cluster.environ["HPCRESUME_EMULATOR"])
        with pytest.raises(ConfigError, match="already"):
            EmulatedCluster(nodes=1)


def test_an_mpi_program_sees_one_world_and_its_place(tmp_path):
    program = (
        "from mpi4py import MPI; import os; w = MPI.COMM_WORLD\n"
        "print(w.allgather((w.rank, os.environ['SLURMD_NODENAME'])))"
    )
    with EmulatedCluster(nodes=2, cpus=2) as cluster:
        (tmp_path / "p.py").write_text(program)
        line = f"srun {sys.executable} {tmp_path}/p.py"
        job = cluster.submit("-N2", "--ntasks-per-node=2", "-o", str(tmp_path / "log"), "--wrap", line)
        assert cluster.wait(job, timeout=60).state == "COMPLETED", (tmp_path / "log").read_text()
    lines = (tmp_path / "log").read_text().replace(")][(", ")]\n[(").split("\n")
    lines = [line for line in lines if line]
    assert lines == ["[(0, 'n0'), (1, 'n0'), (2, 'n1'), (3, 'n1')]"] * 4


@pytest.mark.mpi
def test_an_mpiexec_of_the_script_has_a_slot_for_every_task(tmp_path):
    (tmp_path / "p.py").write_text("from mpi4py import MPI; print(MPI.COMM_WORLD.allgather(0))")
    with EmulatedCluster(nodes=2, cpus=2) as cluster:
        line = f"{Path(sys.executable).parent}/mpiexec {sys.executable} {tmp_path}/p.py"
        job = cluster.submit("-N2", "--ntasks-per-node=2", "-o", str(tmp_path / "log"), "--wrap", line)
        assert cluster.wait(job, timeout=60).state == "COMPLETED", (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_text().count("[0, 0, 0, 0]") == 4


def test_a_job_submitted_by_a_task_is_no_task(tmp_path):
    line = f"sbatch -o {tmp_path}/second --wrap 'env'"
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        job = cluster.submit("-o", str(tmp_path / "log"), "--wrap", f"srun {line}")
        cluster.wait(job, timeout=60)
        cluster.wait(timeout=60)
    names = {each.partition("=")[0] for each in (tmp_path / "second").read_text().splitlines()}
    assert "SLURM_JOB_ID" in names
    assert names & {"SLURM_STEP_ID", "HPCRESUME_EMULATED_TASK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"} == set()


# ---- scripts on the command line

SUPERVISED = (
    "--nodes=2", "--ntasks-per-node=1", "--requeue", "--open-mode=append", "--signal=B:USR1@300", "--output=log",
)  # fmt: skip


@pytest.mark.mpi
def test_a_script_is_played_with_its_timetable_and_shown_live(tmp_path):
    (tmp_path / "out").mkdir()
    line = f"exec hpcresume launch --run run -- {sys.executable} {TRAINING} run 60 out 0.02"
    name = script(tmp_path, line, *SUPERVISED)
    done = run("emulate", "--json", "--kill-wait=1s", "--preempt=step:20", "--kill-node=step:40:n1",
               "--requeue-delay=0", "--keep-logs=logs", "--", name, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [attempt["state"] for attempt in answer["attempts"]] == ["REQUEUED", "NODE_FAIL", "COMPLETED"]
    assert [attempt["fired"] for attempt in answer["attempts"]] == [
        ["--preempt step:20"],
        ["--kill-node step:40:n1"],
        [],
    ]
    (job,) = answer["jobs"]
    assert (job["name"], job["state"], job["output"]) == ("job.sbatch", "COMPLETED", str(tmp_path / "log"))
    log = (tmp_path / "log").read_bytes()
    assert b"".join((tmp_path / f"logs/attempt-000{n}.log").read_bytes() for n in (1, 2, 3)) == log
    assert all(line in done.stderr for line in log.decode().splitlines())
    assert left_behind("HPCRESUME_TEST_MARK", str(os.getpid())) == []


@pytest.mark.mpi
def test_a_script_without_the_supervisor_is_known_by_its_session(tmp_path):
    (tmp_path / "out").mkdir()
    line = f"srun {sys.executable} {TRAINING} run 60 out 0.02"
    name = script(tmp_path, line, "-N2", "--output=log", "--signal=USR1@60")
    done = run("emulate", "--requeue-delay=0", "--preempt=step:20", "--slurm=24.11", "--", name, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CONT+USR1 to the ranks (2 processes)" in done.stderr
    assert "PREEMPTED" in done.stderr


def test_an_array_and_the_jobs_that_jobs_submit(tmp_path):
    chain = script(tmp_path, "echo chained", "-o chained", name="next.sh")
    name = script(tmp_path, f"echo task $SLURM_ARRAY_TASK_ID\n[ $SLURM_ARRAY_TASK_ID = 2 ] && sbatch -Q {chain}; true",
                  "--array=1-3", "-o out.%a")  # fmt: skip
    done = run("emulate", "--json", "--", name, cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (done.returncode, [job["state"] for job in answer["jobs"]]) == (0, ["COMPLETED"] * 4), done.stderr
    assert [(tmp_path / f"out.{n}").read_text() for n in (1, 2, 3)] == ["task 1\n", "task 2\n", "task 3\n"]
    assert (tmp_path / "chained").read_text() == "chained\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("job.sbatch",), 3, "FAILED"),
        (("sbatch", "--hold", "job.sbatch"), 75, "JobHeldUser"),
        (("sbatch", "--bogus", "job.sbatch"), 78, "unrecognized option '--bogus'"),
        (("sbatch", "none.sh"), 78, "Unable to open file none.sh"),
        (("sbatch", "-p", "high", "job.sbatch"), 3, "FAILED"),
    ],
)
def test_how_a_script_ends_is_how_we_end(tmp_path, words, code, says):
    script(tmp_path, "exit 3", "-o log")
    done = run("emulate", "--", *words, cwd=tmp_path)
    assert (done.returncode, says in done.stdout + done.stderr, "Traceback" in done.stderr) == (code, True, False), done


def test_time_limits_below_a_minute_are_kept(tmp_path):
    name = script(tmp_path, "trap 'echo warned' USR1; sleep 60 & wait; wait", "-o log", "--signal=B:USR1@1", "-t 10")
    done = run("emulate", "--time-limit=2s", "--kill-wait=0.5s", "--", name, cwd=tmp_path)
    assert "TIMEOUT" in done.stderr
    assert (tmp_path / "log").read_text().startswith("warned\n")
    assert "DUE TO TIME LIMIT" in (tmp_path / "log").read_text()


# ---- the shell


def test_a_shell_has_the_cluster_and_its_exit_code_is_ours(tmp_path):
    text = """
        hostname > expected
        job=$(sbatch --parsable -N2 -o log --requeue --wrap 'echo life $SLURM_RESTART_COUNT; srun hostname; sleep 1')
        while ! grep -q life log 2>/dev/null; do sleep 0.05; done
        hpcresume emulate kill-node n1 && sbatch --wait -o next --wrap 'sleep 0.1'
        while [ "$(squeue -h -j $job -o %T)" ]; do sleep 0.1; done
        scontrol show job $job | grep -o 'JobState=[A-Z]* '; sacct -j $job -D -X -P -n -o State,Restarts
        hpcresume emulate preempt $job; echo preempt $?
        hpcresume emulate -- true; echo nested $?
        exit 7
    """
    done = run(
        "emulate", "shell", "-N2", "--requeue-delay=0.2s", "--kill-wait=1s", "--", "bash", "-c", text, cwd=tmp_path
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[1:] == [
        "JobState=COMPLETED ", "NODE_FAIL|1", "COMPLETED|1", "preempt 69", "nested 78",
    ], done.stdout  # fmt: skip
    assert (tmp_path / "log").read_text().splitlines()[0] == "life 1"


def test_a_shell_says_in_two_lines_what_is_there_and_ends_what_runs(tmp_path):
    env = {"SHELL": "/bin/sh"}
    with_env = child_environment({**env, "HPCRESUME_TEST_MARK": tmp_path.name})
    done = subprocess.run(hpcresume("emulate", "shell", "-N1"), env=with_env, cwd=tmp_path, text=True, timeout=60,
                          capture_output=True, input="sbatch -o log --wrap 'sleep 100'\nsleep 1\nexit 3\n")  # fmt: skip
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[0].startswith("An emulated cluster: n0"), lines[1][:4]) == (3, True, "Try ")
    assert "ended with the shell" in lines[-1]
    assert left_behind("HPCRESUME_TEST_MARK", tmp_path.name) == []


def test_deeds_outside_a_cluster_are_refused(tmp_path):
    done = run("emulate", "preempt", "12", cwd=tmp_path)
    assert (done.returncode, "no emulated cluster" in done.stderr) == (69, True)


# ---- submitit

SUBMITIT = """
import os, submitit, time

def work(x):
    return x * x, os.environ["SLURM_PROCID"]

executor = submitit.AutoExecutor(folder="sub/%j")
assert executor.cluster == "slurm"
executor.update_parameters(timeout_min=5, nodes=2, tasks_per_node=1)
job = executor.submit(work, 3)
assert job.results() == [(9, "0"), (9, "1")], job.stderr()
array = executor.map_array(work, [1, 2])
assert [job.results()[1] for job in array] == [(1, "1"), (4, "1")]
until = time.monotonic() + 30
while (states := {job.watcher.get_state(job.job_id, mode="force") for job in array}) != {"COMPLETED"}:
    # A result is there before its process has ended.
    assert states <= {"RUNNING", "COMPLETING", "COMPLETED"} and time.monotonic() < until, states
    time.sleep(0.1)
gone = executor.submit(work, "x")
try:
    gone.result()
except submitit.core.utils.FailedJobError as error:
    assert "TypeError" in str(error)
stopped = executor.submit(__import__("time").sleep, 100)
stopped.cancel()
"""


@pytest.mark.mpi
def test_submitits_slurm_executor_runs_unchanged(tmp_path):
    pytest.importorskip("submitit")
    (tmp_path / "user.py").write_text(SUBMITIT)
    done = run("emulate", "shell", "-N2", "--quiet", "--", sys.executable, "user.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the page


@pytest.mark.checkout
def test_the_page_is_up_to_date():
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "tools/emulator_page.py", "--check"], cwd=root, timeout=60)
    assert ended.returncode == 0, "run: python tools/emulator_page.py"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("squeue", "-w", "n["), 1),
        (("srun", "-w", "n[", "true"), 1),
        (("sbatch", "x" * 300), 1),
        (("scancel", "--wckey=other"), 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_no_command_takes_the_cluster_down(tmp_path, words, code):
    with EmulatedCluster(nodes=1, cpus=2) as cluster:
        job = cluster.submit("--wrap", "sleep 30", cwd=tmp_path)
        done = cluster.run(*words, check=False)
        assert (done.returncode, "rror: " in done.stderr) == (code, True), done.stderr
        assert cluster.run("squeue", "-h", "-o", "%i").stdout.split() == [job]


def test_a_job_that_never_fits_holds_up_nobody(tmp_path):
    with EmulatedCluster(nodes=1, cpus=2) as cluster:
        impossible = cluster.submit("-N2", "--wrap", "true", cwd=tmp_path)
        cluster.wait(cluster.submit("--wrap", "true", cwd=tmp_path))
        assert cluster.job(impossible).state == "PENDING"
        cluster.run("scancel", impossible)
