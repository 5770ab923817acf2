"""Scripts as they lie about on clusters, and systems that refuse something: each does its job or fails alone."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcresume.emulate import srun_streams
from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.emulate.settings import parse_partition
from hpcresume.errors import ConfigError, SlurmError
from tests.emulate.test_cluster import run, script
from tests.support.launching import left_behind, wait_until
from tests.support.mpi import child_environment
from tests.support.sampling import sampled

pytestmark = pytest.mark.timeout(60)


def finished(cluster: EmulatedCluster, folder: Path, text: str, *options: str, shebang: str = "#!/bin/bash") -> str:
    """The log of a job that completed."""
    path = folder / "job.sh"
    path.write_text(f"{shebang}\n{text}\n")
    job = cluster.submit("-o", str(folder / "log"), *options, str(path), cwd=folder)
    state = cluster.wait(job, timeout=30)
    log = (folder / "log").read_text()
    assert state.state == "COMPLETED", log
    return log


# ---- what is taken for a script


@pytest.mark.parametrize(("words", "mode"), sampled([("t.sh", 0o644), ("./t.sh", 0o644), ("t.sh", 0o755)],
                                                    lambda cell: cell[0] == "t.sh"))  # fmt: skip
def test_a_script_without_sbatch_lines_that_is_no_command_runs_as_a_batch_script(tmp_path, words, mode):
    """As with sbatch, which needs neither #SBATCH lines nor the right to execute, nor a folder before the name."""
    (tmp_path / "t.sh").write_text('#!/bin/bash\necho "$SLURM_JOB_ID $1" > said\n')
    (tmp_path / "t.sh").chmod(mode)
    done = run("emulate", "--", words, "word", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    number, word = (tmp_path / "said").read_text().split()
    assert (number.isdecimal(), word) == (True, "word")
    assert len(list(tmp_path.glob("slurm-*.out"))) == 1, "a batch script has a log of its own"


def test_an_executable_program_with_its_path_stays_a_command(tmp_path):
    (tmp_path / "t.sh").write_text('#!/bin/bash\necho "rank $SLURM_PROCID"\n')
    (tmp_path / "t.sh").chmod(0o755)
    shown = run("emulate", "--dry-run", "--json", "-n", "2", "--", "./t.sh", cwd=tmp_path)
    assert (shown.returncode, json.loads(shown.stdout)["command"]) == (0, ["./t.sh"]), shown.stderr


@pytest.mark.parametrize("text", sampled(["print('hello')\n", ""], bool))
def test_a_file_that_nothing_could_start_is_named_and_what_to_type_instead(tmp_path, text):
    (tmp_path / "train.py").write_text(text)
    done = run("emulate", "--", "train.py", cwd=tmp_path)
    assert done.returncode == ConfigError.exit_code, done.stderr
    assert "this file is neither a command nor a batch script\nwhere: train.py\n" in done.stderr
    assert "-- python train.py" in done.stderr


def test_a_mistyped_word_of_ours_is_not_run_as_a_command(tmp_path):
    done = run("emulate", "kil-rank", "12", "0", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "did you mean hpcresume emulate kill-rank?" in done.stderr
    (tmp_path / "kil-rank").write_text("#!/bin/sh\necho mine\n")
    assert run("emulate", "--dry-run", "kil-rank", cwd=tmp_path).returncode == 0, "it is a script of the user's"


# ---- where commands are found


def test_a_script_that_sets_path_anew_still_finds_the_cluster(tmp_path):
    text = "set -eux\nexport PATH=/usr/bin:/bin\nsrun --mpi=none echo $PATH\ntype squeue\necho ${BASH_ENV-none}"
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        log = finished(cluster, tmp_path, text)
        bin_ = str(cluster.engine.home.programs)
    lines = [line for line in log.splitlines() if not line.startswith("+")]
    assert lines == [f"{bin_}:/usr/bin:/bin", f"squeue is {bin_}/squeue", "none"]
    assert "case" not in log


def test_the_users_own_bash_env_is_read_too(tmp_path):
    own = tmp_path / "own"
    own.write_text("module() { echo module $*; }\n")
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        log = finished(
            cluster, tmp_path, "module load x; echo $BASH_ENV $HPCRESUME_BASH_ENV", f"--export=ALL,BASH_ENV={own}"
        )
    assert log == f"module load x\n{own}\n"


def test_a_real_slurm_command_cannot_ask_a_real_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        inside = finished(cluster, tmp_path, "cat $SLURM_CONF")
        assert Path(cluster.environ["SLURM_CONF"]).read_text() == inside
    assert "ThisIsAnEmulatedCluster" in inside


def test_nodes_of_another_cluster_are_left_out_with_a_note(tmp_path):
    name = script(
        tmp_path, "echo $SLURM_JOB_NUM_NODES $SLURM_JOB_NODELIST", "--nodelist=gpu[01-02]", "-x bad7", "-o log"
    )
    done = run("emulate", "--", name, cwd=tmp_path)
    assert (done.returncode, (tmp_path / "log").read_text()) == (0, "2 n[0-1]\n"), done.stderr
    assert "no node of the emulated cluster is called gpu[01-02],bad7" in done.stderr
    with EmulatedCluster(nodes=2, cpus=1) as cluster:
        said = cluster.run("sbatch", "-w", "gpu7", name, cwd=tmp_path)
        assert "gpu7,bad7: left out" in said.stderr
        cluster.wait(timeout=20)
        assert [job.state for job in cluster.jobs()] == ["COMPLETED"]


@pytest.mark.parametrize("words", [("het",), ("-N1", ":", "-N1", "het")], ids=["hetjob", "colon"])
def test_heterogeneous_jobs_are_refused_clearly(tmp_path, words):
    script(tmp_path, "true", "-N1\n#SBATCH hetjob\n#SBATCH -N2", name="het")
    with EmulatedCluster(nodes=1, cpus=1) as cluster, pytest.raises(SlurmError, match="heterogeneous jobs"):
        cluster.submit(*words, cwd=tmp_path)


@pytest.mark.full
def test_a_submission_from_standard_input_on_the_command_line(tmp_path):
    env = child_environment({"HPCRESUME_TEST_MARK": str(os.getpid())})
    for words in (["sbatch", "-o", "log"], ["sbatch", "-o", "log", "/dev/stdin"]):
        done = subprocess.run([sys.executable, "-m", "hpcresume", "emulate", "--", *words], env=env, cwd=tmp_path,
                              capture_output=True, text=True, input="#!/bin/sh\necho came\n", timeout=50)  # fmt: skip
        assert (done.returncode, (tmp_path / "log").read_text()) == (0, "came\n"), done.stderr


# ---- what srun does


def test_a_task_that_does_not_read_holds_up_no_other(tmp_path):
    text = """
        seq 100000 | srun -n2 -N1 --mpi=none bash -c '
            [ $SLURM_PROCID = 1 ] && { wc -l; touch done; exit 0; }
            for i in {1..80}; do [ -e done ] && exit 0; sleep 0.1; done; exit 9'
    """
    with EmulatedCluster(nodes=1, cpus=2) as cluster:
        assert finished(cluster, tmp_path, text, "-n2") == "100000\n"


def test_a_closed_standard_input_is_an_empty_one(tmp_path):
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        assert finished(cluster, tmp_path, "srun --mpi=none cat <&-; echo $?") == "0\n"


@pytest.mark.full
def test_a_step_ends_at_its_own_time_limit(tmp_path):
    with EmulatedCluster(nodes=1, cpus=1, kill_wait=0.5) as cluster:
        log = finished(cluster, tmp_path, "srun --mpi=none -t 0:01 sleep 50; echo code $?")
    assert "DUE TO TIME LIMIT" in log
    assert log.endswith("code 143\n")


def test_descriptors_above_1023_are_watched():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1600
    assert hard == resource.RLIM_INFINITY or hard >= wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    read, write = os.pipe()
    high = 1500
    try:
        os.dup2(read, high)
        assert srun_streams.ready_now([high], [write], 0) == [write]
        os.write(write, b"x")
        assert high in srun_streams.ready_now([high], [], 0)
    finally:
        for fd in (read, write, high):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- when the system refuses something


def test_a_script_that_cannot_be_kept_is_refused_and_nothing_of_its_array_stays(tmp_path):
    long = tmp_path / "long.sh"
    long.write_text("#!/bin/bash\n" + "# padding\n" * 5000)
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
        try:
            with pytest.raises(SlurmError, match="I/O error writing script/environment to file"):
                cluster.submit("--array=1-3", str(long), cwd=tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert cluster.jobs() == []
        assert finished(cluster, tmp_path, "echo on") == "on\n"


def test_a_job_that_cannot_be_started_fails_alone(tmp_path):
    with EmulatedCluster(nodes=1, cpus=1) as cluster:
        launch = cluster.engine.home.directory / "launch"
        launch.rename(launch.with_name("away"))
        launch.write_text("no folder")
        job = cluster.submit("-o", str(tmp_path / "out"), "--wrap", "true", cwd=tmp_path)
        assert cluster.wait(job, timeout=20).state == "FAILED"
        launch.unlink()
        launch.with_name("away").rename(launch)
        assert finished(cluster, tmp_path, "echo on") == "on\n"


OWNER = """
import sys, time
from hpcresume.emulate.cluster import EmulatedCluster
with EmulatedCluster(nodes=1, cpus=1) as cluster:
    cluster.submit("-o", "/dev/null", "--wrap", "sleep 300 & wait", cwd=".")
    while not cluster.run("squeue", "-h", "-t", "R").stdout: time.sleep(0.05)
    home = cluster.engine.home
    print(home._keeper.pid, home.directory, home.shared_memory or home.directory, flush=True)
    time.sleep(300)
"""


def test_the_next_cluster_clears_away_what_a_killed_one_and_its_keeper_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    env = child_environment({"HPCRESUME_TEST_MARK": tmp_path.name, "TMPDIR": str(tmp_path)})
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    keeper, *places = owner.stdout.readline().split()
    owner.stdout.close()
    mine, foreign = (tmp_path / f"hpcresume-emulate-{name}" for name in ("empty", "foreign"))
    mine.mkdir(mode=0o700)
    foreign.mkdir(mode=0o700)
    (foreign / "file").touch()
    with EmulatedCluster(nodes=1, cpus=1) as other:
        for pid in (int(keeper), owner.pid):
            os.kill(pid, signal.SIGKILL)
        owner.wait()
        assert all(Path(place).is_dir() for place in places)
        long_ago = time.time() - 100
        kept = other.engine.home.directory
        for place in (*places, mine, foreign, kept):
            os.utime(place, (long_ago, long_ago))
        with EmulatedCluster(nodes=1, cpus=1):
            assert [place for place in (*places, mine) if Path(place).exists()] == []
        assert kept.is_dir()
        assert (foreign / "file").exists()
        assert other.run("squeue", "-h").returncode == 0
    assert left_behind("HPCRESUME_TEST_MARK", tmp_path.name, seconds=5) == []


# ---- filters


def test_what_is_asked_for_is_what_is_listed(tmp_path):
    with EmulatedCluster(
        nodes=1, cpus=1, partitions=(parse_partition("one"), parse_partition("two,tier=2"))
    ) as cluster:
        first = cluster.submit("-A", "physics", "-q", "long", "-o", "/dev/null", "--wrap", "sleep 30", cwd=tmp_path)
        wait_until(lambda: cluster.job(first).state == "RUNNING")
        second = cluster.submit("-A", "biology", "-J", "second", "-o", "/dev/null", "--wrap", "true", cwd=tmp_path)

        def listed(*words: str) -> list[str]:
            return cluster.run(*words).stdout.split()

        queue = ("squeue", "-h", "-o", "%i")
        assert listed(*queue, "-A", "physics") == listed(*queue, "--qos=long") == [first]
        assert listed(*queue, "-A", "biology") == listed(*queue, "-n", "second") == [second]
        assert listed(*queue, "-A", "physics", "-n", "second") == listed(*queue, "-p", "two") == []
        assert sorted(listed(*queue, "-t", "R,PD")) == sorted([first, second])
        assert listed(*queue, "-t", "running") == listed(*queue, "-w", "n0") == [first]
        assert listed(*queue, "--start") == [second]
        assert listed("squeue", "-h", "--steps", "-o", "%i") == [f"{first}.batch"]
        history = ("sacct", "-n", "-X", "-P", "-o", "JobID")
        assert listed(*history, "-A", "biology") == [second]
        assert sorted(listed(*history, "-S", "now-1hour")) == sorted([first, second])
        assert listed(*history, "-S", "2020-01-01", "-E", "2020-01-02") == []
        assert listed(*history, "-u", "65534") == []
        cluster.run("scancel", "-A", "physics")
        assert cluster.wait(first, second, timeout=20).state == "CANCELLED"
        assert cluster.job(second).state == "COMPLETED"


@pytest.mark.full
def test_times_and_limits_are_those_of_the_version(tmp_path):
    for version, times in (("22.05", ""), ("24.11", "SLURM_JOB_END_TIME SLURM_JOB_START_TIME")):
        with EmulatedCluster(nodes=1, cpus=1, slurm=version) as cluster:
            text = "compgen -v SLURM_JOB_ | grep TIME | xargs; echo $SLURM_MEM_PER_NODE"
            assert finished(cluster, tmp_path, text, "-t1", "--mem=3G") == f"{times}\n3072\n"
            shown = cluster.run("scontrol", "show", "config").stdout
            assert ("= preempt_send_user_signal" in shown, "= send_user_signal" in shown) == (not times, bool(times))
