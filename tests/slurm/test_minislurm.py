"""A cluster of its own from start to end: up quickly, damaged and mended, and gone without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcresume.errors import ClusterError, ConfigError, SlurmError, UsageError
from hpcresume.testing import MiniSlurm, Partition
from hpcresume.testing.minislurm.machine import missing_programs
from tests.slurm.cluster import Cluster, skip_without_slurm
from tests.slurm.leftovers import leftovers, wait_until_nothing_is_left
from tests.support.lacking import cannot
from tests.support.sampling import sampled
from tests.support.users import PLAIN_USER, as_plain_user

ROOT = Path(__file__).parents[2]
VERB = [sys.executable, "-m", "hpcresume", "minislurm"]
UP_WITHIN = 5.0
"""Seconds for four nodes, issue 4."""


@pytest.fixture(autouse=True)
def _slurm_is_here() -> None:
    skip_without_slurm()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path, whatever pytest's own are called: unix sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="mini-") as folder:
        yield Path(folder)


@pytest.fixture(params=["root", "plain"])
def user(request: pytest.FixtureRequest) -> str:
    """Who starts the cluster."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("not root")
    return str(request.param)


@pytest.fixture
def place(user: str) -> Iterator[Path]:
    """A folder that the user may write, with a short path that others may enter; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mini-"))
    if user == "plain" and os.geteuid() == 0:
        os.chown(folder, PLAIN_USER, PLAIN_USER)
    yield folder
    if (folder / "c" / "minislurm.json").exists():
        verb(user, "down", folder / "c")
    shutil.rmtree(folder)


def words(user: str, *more: object) -> list[str]:
    command = [*VERB, *map(str, more)]
    return as_plain_user(command) if user == "plain" else command


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": tempfile.gettempdir(), "PYTHONDONTWRITEBYTECODE": "1"}


def verb(user: str, *more: object, check: bool = True, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    """Run an inner verb as a user would."""
    done = subprocess.run(
        words(user, *more), env=environment(), cwd="/", capture_output=True, text=True, timeout=timeout, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def in_cluster(user: str, directory: Path, script: str) -> str:
    """Run shell lines in the environment that `env` prints, as a CI step would."""
    lines = f'set -e\neval "$({" ".join(VERB)} env {directory})"\n{script}'
    command = ["sh", "-c", lines]
    done = subprocess.run(
        as_plain_user(command) if user == "plain" else command,
        env=environment(), cwd="/", capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_four_nodes_are_idle_within_5_s_each_has_namespaces_of_its_own_and_down_leaves_nothing(
    user: str, place: Path
) -> None:
    directory = place / "c"
    began = time.monotonic()
    shown = verb(user, "up", directory, "--nodes", 4)
    seconds = time.monotonic() - began
    print(f"{user}: four nodes idle after {seconds:.2f} s, the interpreter's start included")
    assert "4 nodes idle after" in shown.stderr
    assert f"export SLURM_CONF={directory}/etc/slurm.conf\n" in shown.stdout
    assert directory.stat().st_mode & 0o777 == 0o700
    status = json.loads(verb(user, "status", directory, "--json").stdout)
    assert status["healthy"]
    assert [node["state"] for node in status["nodes"]] == ["idle"] * 4
    step = (
        "echo $(hostname) $(readlink /proc/self/ns/pid) $(readlink /proc/self/ns/mnt) $(id -u); touch /dev/shm/mini-$$"
    )
    lines = in_cluster(user, directory, f"srun -N4 sh -c '{step}; ls /dev/shm | wc -l'").splitlines()
    assert len(lines) == 8
    seen = [line.split() for line in lines if " " in line]
    assert sorted(fields[0] for fields in seen) == ["n1", "n2", "n3", "n4"]
    for column in (1, 2):
        assert len({fields[column] for fields in seen}) == 4
    assert {fields[3] for fields in seen} == {"0" if user == "root" and os.geteuid() == 0 else str(_uid(user))}
    assert [line for line in lines if " " not in line] == ["1"] * 4, "a node sees another's /dev/shm"
    assert not list(Path("/dev/shm").glob("mini-*"))
    assert leftovers(directory) != [], "the search for leftovers finds nothing"
    verb(user, "down", directory)
    assert leftovers(directory) == []
    again = verb(user, "down", directory)
    assert "nothing is up" in again.stderr
    assert seconds <= UP_WITHIN


def _uid(user: str) -> int:
    return PLAIN_USER if user == "plain" and os.geteuid() == 0 else os.geteuid()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("user", sampled(["root", "plain"], lambda user: user == "plain"), indirect=True)
def test_a_job_whose_node_loses_power_runs_again_on_another_and_the_node_comes_back(user: str, place: Path) -> None:
    directory = place / "c"
    verb(user, "up", directory, "--nodes", 2)
    script = place / "job.sh"
    script.write_text(
        f"#!/bin/sh\nhostname >> {place}/ran\nset -- $(wc -l {place}/ran)\n[ $1 = 1 ] || exit 0\nsleep 300\n"
    )
    submit = f"sbatch --parsable --requeue --nodes=1 --output={place}/job.log {script}"
    job = in_cluster(user, directory, submit).strip()
    _until(lambda: (place / "ran").exists() and (place / "ran").read_text(), 30)
    first = (place / "ran").read_text().strip()
    killed = time.monotonic()
    verb(user, "kill-node", directory, first)
    status = json.loads(verb(user, "status", directory, "--json").stdout)
    assert [node["powered"] for node in status["nodes"]] == [node["name"] != first for node in status["nodes"]]
    assert not status["healthy"]
    _until(lambda: len((place / "ran").read_text().split()) == 2, 90)
    print(f"{user}: second life {time.monotonic() - killed:.1f} s after the loss of power")
    verb(user, "start-node", directory, first)
    _until(lambda: "COMPLETED" in in_cluster(user, directory, f"scontrol show job {job}"), 30)
    assert (place / "ran").read_text().split() == [first, {"n1": "n2", "n2": "n1"}[first]]
    _until(lambda: json.loads(verb(user, "status", directory, "--json").stdout)["healthy"], 30)
    assert in_cluster(user, directory, f"srun -w {first} hostname").strip() == first
    verb(user, "down", directory)
    assert leftovers(directory) == []


def _until(condition, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "too late"
        time.sleep(0.1)


ON_NODE = """
import sys
from hpcresume.errors import ClusterError, ConfigError, SlurmError
from hpcresume.testing import MiniSlurm
with MiniSlurm(sys.argv[1], nodes=2) as cluster:
    print(cluster.on_node("n2", "hostname").strip())
    print(cluster.on_node("n2", "cat", "/proc/1/comm").strip())
    for name, words in (("n3", ["true"]), ("n1", ["false"]), ("n1", ["no-such-program"])):
        try:
            cluster.on_node(name, *words)
        except (ConfigError, SlurmError) as error:
            print(type(error).__name__)
    cluster.kill_node("n2")
    try:
        cluster.on_node("n2", "true")
    except ClusterError as error:
        print(error)
"""


def test_a_command_runs_on_a_node_beside_its_jobs_as_root_or_as_a_plain_user(user: str, place: Path) -> None:
    command = [sys.executable, "-c", ON_NODE, str(place / "c")]
    done = subprocess.run(
        as_plain_user(command) if user == "plain" else command,
        env=environment(), cwd="/", capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, off = done.stdout.splitlines()
    assert said == ["n2", "sh", "ConfigError", "SlurmError", "SlurmError"]
    assert "n2 is off" in off
    assert "start_node" in off


def test_what_is_mounted_on_a_node_is_seen_by_its_jobs_alone_and_goes_with_its_power(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with MiniSlurm(tmp_path / "c", nodes=2) as cluster:
        cluster.on_node("n1", "mount", "-t", "tmpfs", "tmpfs", str(scratch))
        cluster.command("srun", "-w", "n1", "touch", str(scratch / "mine"))
        assert "mine" in cluster.command("srun", "-w", "n1", "ls", str(scratch))
        assert cluster.command("srun", "-w", "n2", "ls", str(scratch)) == ""
        assert list(scratch.iterdir()) == []
        cluster.kill_node("n1")
        cluster.start_node("n1")
        assert cluster.on_node("n1", "ls", str(scratch)) == ""


@pytest.mark.parametrize("moment", sampled([0.0, 0.05, 0.15, 0.25, 0.4], lambda moment: moment in (0.0, 0.25)))
def test_an_up_that_is_interrupted_cleans_up_and_one_that_is_killed_is_cleaned_up_by_down(
    user: str, place: Path, moment: float
) -> None:
    directory = place / "c"
    for number in (signal.SIGINT, signal.SIGTERM):
        starting = _starting(user, directory, moment)
        starting.send_signal(number)
        code = starting.wait(30)
        interrupted = 128 + number
        assert code == interrupted or moment > 0, "it was not interrupted"
        if code != interrupted:  # it was quicker
            verb(user, "down", directory)
        wait_until_nothing_is_left(directory, 5)
    starting = _starting(user, directory, moment)
    starting.kill()
    starting.wait(30)
    verb(user, "down", directory)
    assert leftovers(directory) == []


def _starting(user: str, directory: Path, moment: float) -> subprocess.Popen[bytes]:
    """`up` on its way, so many seconds after it has begun to make its directory."""
    starting = subprocess.Popen(
        words(user, "up", directory, "--nodes", 4),
        env=environment(), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _until((directory / "minislurm.json").exists, 30)
    time.sleep(moment)
    return starting


def test_a_cluster_in_a_with_block_ends_with_its_process_even_by_kill_9(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom hpcresume.testing import MiniSlurm\n"
        "with MiniSlurm(sys.argv[1], nodes=2) as cluster:\n"
        "    print(cluster.version, flush=True)\n    time.sleep(300)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "c")], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().count(".") == 2
    assert leftovers(tmp_path / "c") != []
    holder.kill()
    holder.wait()
    holder.stdout.close()
    wait_until_nothing_is_left(tmp_path / "c", 10)


def test_run_gives_a_command_a_cluster_and_its_exit_code(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    command = ["sh", "-c", 'srun -N3 hostname; echo "$SLURM_CONF"; exit 7']
    done = verb("root", "run", "--nodes", 3, "--keep-logs", logs, "--", *command, check=False)
    *names, configuration = sorted(done.stdout.split(), key=lambda word: ("/" in word, word))
    assert (done.returncode, names) == (7, ["n1", "n2", "n3"])
    assert leftovers(Path(configuration).parents[1]) == []
    assert "slurmctld version" in (logs / "slurmctld.log").read_text()


def test_two_clusters_live_side_by_side_and_the_end_of_one_leaves_the_other_alone(tmp_path: Path) -> None:
    with MiniSlurm(tmp_path / "a") as first, MiniSlurm(tmp_path / "b") as second:
        assert first.command("sinfo", "-h", "-N", "-p", "low", "-o", "%N").split() == ["n1", "n2"]
        second.down()
        assert leftovers(tmp_path / "b") == []
        assert first.status().healthy
        assert first.command("srun", "hostname").strip() == "n1"
    assert leftovers(tmp_path / "a") == []


def test_down_spares_a_stranger_that_has_got_the_pid_of_a_daemon(tmp_path: Path) -> None:
    cluster = MiniSlurm(tmp_path / "c", nodes=1)
    cluster.up()
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        record = tmp_path / "c" / "run" / "munged.process"
        fields = json.loads(record.read_text())
        munged, fields["pid"] = fields["pid"], stranger.pid
        record.write_text(json.dumps(fields))
        assert cluster.status().daemons["munged"] is None
        MiniSlurm.attach(tmp_path / "c").down()
        assert stranger.poll() is None
        assert not Path(f"/proc/{munged}/cwd").is_dir(), "the mark finds it all the same"
    finally:
        stranger.kill()
        stranger.wait()
    assert leftovers(tmp_path / "c") == []


@pytest.mark.timeout(120)
def test_slurmd_killed_alone_leaves_its_job_running_and_a_controller_s_crash_harms_nothing(tmp_path: Path) -> None:
    with MiniSlurm(tmp_path / "c", nodes=1) as mini:
        beats = tmp_path / "beats"
        beat = f"#!/bin/sh\ni=0\nwhile [ $i -lt 400 ]; do i=$((i+1)); echo $i > {beats}; sleep 0.05; done\n"
        (tmp_path / "job.sh").write_text(beat)
        cluster = Cluster(mini)
        job = cluster.submit(tmp_path / "job.sh", f"--output={tmp_path / 'log'}")
        _until(lambda: beats.exists() and beats.read_text().strip(), 30)
        mini.kill_slurmd("n1")
        _until(lambda: mini.status().nodes[0].slurmd is None, 5)
        before = int(beats.read_text() or 0)
        _until(lambda: int(beats.read_text() or 0) > before, 5)
        assert mini.status().nodes[0].powered
        mini.start_node("n1")
        mini.stop_controller()
        assert mini.status().nodes[0].state == "unknown"
        mini.start_controller()
        mini.wait(lambda: cluster.job(job)["JobState"] == "COMPLETED", "end of the job", timeout=60)
        assert (cluster.job(job)["Restarts"], beats.read_text().strip()) == ("0", "400")


def test_partitions_grace_and_lines_of_one_s_own_reach_slurm(tmp_path: Path) -> None:
    partitions = [Partition("main", grace=7, limit=3), Partition("urgent", tier=5, preempt="OFF", nodes="n2")]
    with MiniSlurm(tmp_path / "c", partitions=partitions, user_signal=False, extra={"KillWait": "9"}) as mini:
        main = mini.command("scontrol", "-o", "show", "partition", "main")
        urgent = mini.command("scontrol", "-o", "show", "partition", "urgent")
        assert " GraceTime=7 " in main
        assert " MaxTime=00:03:00 " in main
        assert " Nodes=n2 " in urgent
        assert " PriorityTier=5 " in urgent
        settings = mini.command("scontrol", "show", "config")
        assert "KillWait                = 9 sec" in settings
        assert "preempt_send_user_signal" not in settings


def test_a_line_that_slurm_refuses_is_told_in_slurm_s_words_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"slurmctld ended: .*find plugin for select/nonsense") as caught:
        MiniSlurm(tmp_path / "c", extra={"SelectType": "select/nonsense"}).up()
    assert caught.value.exit_code == 69
    assert leftovers(tmp_path / "c") == []


def test_a_directory_with_a_cluster_or_with_anything_in_it_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        MiniSlurm(tmp_path / "mine").up()
    done = verb("root", "down", tmp_path / "mine", check=False)
    assert (done.returncode, "there is no cluster here" in done.stderr) == (69, True)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]
    with MiniSlurm(tmp_path / "c", nodes=1) as mini:
        with pytest.raises(ConfigError, match="there is a cluster in this directory"):
            MiniSlurm(tmp_path / "c").up()
        assert mini.status().healthy


def test_logs_are_kept_when_asked_for(tmp_path: Path) -> None:
    mini = MiniSlurm(tmp_path / "c", nodes=1)
    mini.up()
    mini.down(keep_logs=True)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["log"]
    assert "Terminate signal" not in (tmp_path / "c" / "log" / "slurmctld.log").read_text()
    shutil.rmtree(tmp_path / "c")
    assert leftovers(tmp_path / "c") == []


def test_what_is_asked_of_a_cluster_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not up"):
        MiniSlurm(tmp_path / "c").command("sinfo")
    with pytest.raises(ClusterError, match="there is no cluster here"):
        MiniSlurm.attach(tmp_path / "c")
    with MiniSlurm(tmp_path / "c", nodes=1) as mini:
        with pytest.raises(ConfigError, match="no node n2"):
            mini.kill_node("n2")
        with pytest.raises(SlurmError, match="scontrol exited with 1"):
            mini.command("scontrol", "show", "job", "99999")
        (tmp_path / "c" / "minislurm.json").write_text("{}")
        with pytest.raises(ClusterError, match="damaged"):
            MiniSlurm.attach(tmp_path / "c")


def test_a_node_whose_port_was_taken_while_it_was_off_says_so(tmp_path: Path) -> None:
    with MiniSlurm(tmp_path / "c", nodes=2) as mini:
        mini.kill_node("n2")
        line = next(line for line in (tmp_path / "c/etc/slurm.conf").read_text().split() if line.startswith("Port="))
        with socket.socket() as thief:
            thief.bind(("127.0.0.1", int(line.partition("-")[2].rstrip("]"))))
            thief.listen()
            with pytest.raises(ClusterError, match="the port of n2 has been taken"):
                mini.start_node("n2")
        mini.start_node("n2")
        assert mini.status().healthy


def test_where_user_namespaces_are_forbidden_the_error_names_the_setting(tmp_path: Path) -> None:
    """In a user namespace of the test's own, the kernel's limit for those below it is set to none."""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --ambient-caps=-all --inh-caps=-all "$@"'
    inside = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", forbid, "sh"]
    command = as_plain_user([*inside, *VERB, "up", str(Path(tempfile.gettempdir()) / "mini-forbidden")])
    done = subprocess.run(command, env=environment(), cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 69, done.stderr
    assert "error: nodes cannot have namespaces of their own" in done.stderr
    assert "sysctl -w user.max_user_namespaces" in done.stderr
    assert not (Path(tempfile.gettempdir()) / "mini-forbidden").exists()


@pytest.mark.timeout(120)
def test_with_accounting_sacct_tells_of_jobs_and_nothing_is_left_of_the_database(user: str, place: Path) -> None:
    missing = missing_programs(accounting=True)
    if missing:
        cannot(f"{', '.join(missing)} missing; `make test-slurm` installs them where it may")
    directory = place / "c"
    began = time.monotonic()
    verb(user, "up", directory, "--accounting")
    print(f"{user}: up with accounting after {time.monotonic() - began:.2f} s")
    assert "slurmdbd" in verb(user, "status", directory).stdout
    in_cluster(user, directory, "srun --job-name=counted -N2 true")
    ask = "sacct --parsable2 --noheader --allocations --format=JobName,State,NNodes"
    _until(lambda: in_cluster(user, directory, ask) == "counted|COMPLETED|2\n", 30)
    verb(user, "down", directory)
    assert leftovers(directory) == []


@pytest.mark.slurm_versions
def test_a_job_that_saves_in_its_grace_and_exits_0_is_requeued_by_24_11_only(cluster: Cluster, tmp_path: Path) -> None:
    """What differs between the two versions, and that these are two: LOCAL_SLURM's own observation."""
    script = tmp_path / "job.sh"
    script.write_text(
        f"#!/bin/bash\necho life >> {tmp_path}/lives\n[ $(wc -l < {tmp_path}/lives) = 2 ] && exit 0\n"
        f"trap 'echo warned >> {tmp_path}/warned; exit 0' USR1\nwhile :; do sleep 0.1; done\n"
    )
    job = cluster.submit(script, "--requeue", "--signal=B:USR1@60", "--exclusive", "--nodes=2",
                         f"--output={tmp_path / 'log'}")  # fmt: skip
    cluster.wait(lambda: (tmp_path / "lives").exists(), "first life")
    high = tmp_path / "high.sh"
    high.write_text("#!/bin/sh\ntrue\n")
    cluster.submit(high, "--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path / 'high.log'}")
    cluster.wait(lambda: cluster.job(job)["JobState"] == "COMPLETED", "end of the job", 60)
    new = tuple(map(int, cluster.mini.version.split(".")[:2])) >= (24, 11)
    assert (tmp_path / "warned").read_text() == "warned\n"
    assert cluster.job(job)["Restarts"] == ("1" if new else "0")


@pytest.mark.slurm_versions
def test_a_node_can_be_killed_and_started_on_every_version(cluster: Cluster) -> None:
    cluster.kill_node("n2")
    assert cluster.mini.status().nodes[1].powered is False
    cluster.start_node("n2")
    assert cluster.command("srun", "-w", "n2", "hostname").strip() == "n2"
