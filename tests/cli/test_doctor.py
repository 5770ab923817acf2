"""`hpcresume doctor` as a user types it: without Slurm or MPI, with a broken Slurm, with an emulated one, on a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcresume.cli.doctor import command
from hpcresume.cli.main import main
from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.emulate.settings import default_partitions
from hpcresume.ops.doctor.probe import Asked, as_json, probe
from hpcresume.ops.doctor.subject import the_subject
from tests.submit.scripts import stand_in
from tests.support.launching import hpcresume
from tests.support.mpi import child_environment, mpi_environment

pytestmark = pytest.mark.timeout(240)

TRAINING = """\
import sys
import numpy as np
import hpcresume as hr

with hr.session(sys.argv[1], every="2 steps") as s:
    w = np.zeros(4)
    s.track(w=w)
    for step in s.steps(6):
        s.log(loss=float(step))
"""


def bare_path(folder: Path) -> str:
    """A PATH without Slurm: this Python's folder, and links to the few programs that are needed."""
    folder.mkdir()
    for name in ("bash", "env", "sh", "true", "uname"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return os.pathsep.join([str(Path(sys.executable).parent), str(folder)])


def doctor(*words: str, env: dict[str, str], cwd: Path, code: int) -> dict[str, dict]:
    """The findings by the name of their check."""
    done = subprocess.run(hpcresume("doctor", *words, "--json"), env=env, cwd=cwd, capture_output=True, text=True,
                          timeout=200, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr == ""
    return {each["check"]: each for each in json.loads(done.stdout)["findings"]}


def test_without_slurm_without_mpi_and_in_memory_each_is_a_line(tmp_path):
    stand_in(tmp_path / "py", "mpi4py.py", "raise ModuleNotFoundError('mpi4py')\n")
    env = child_environment({"PATH": bare_path(tmp_path / "bin")})
    env["PYTHONPATH"] += f"{os.pathsep}{tmp_path / 'py'}"
    env["PYTHONPATH"] = os.pathsep.join(reversed(env["PYTHONPATH"].split(os.pathsep)))
    shm = Path("/dev/shm") / f"hpcresume-test-{os.getpid()}"
    shm.mkdir(mode=0o700)
    try:
        found = doctor(str(shm), "--write=1MiB", env=env, cwd=tmp_path, code=1)
        assert list(shm.iterdir()) == []
    finally:
        shm.rmdir()
    assert (found["Slurm"]["verdict"], found["library"]["verdict"]) == ("unknown", "warn")
    assert "emulate" in found["Slurm"]["try"]
    assert (found["filesystem"]["verdict"], "memory" in found["filesystem"]["what"]) == ("bad", True)
    for name in ("rename", "speed", "free space", "seen by others", "HDF5", "environment"):
        assert found[name]["verdict"] == "ok", found[name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nhead -c 300 /dev/urandom\n", "what is no configuration"),
        pytest.param("#!/bin/sh\necho 'scontrol: error: boom' >&2; exit 1\n", "boom", marks=pytest.mark.full),
        pytest.param("#!/bin/sh\nexec sleep 60\n", "no answer within 10 s", marks=pytest.mark.full),
    ],
)
def test_a_slurm_that_talks_nonsense_fails_or_hangs_is_a_line(tmp_path, text, words):
    path = bare_path(tmp_path / "bin")
    for name in ("head", "sleep"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    stand_in(tmp_path / "bin", "scontrol", text)
    env = child_environment({"PATH": path})
    found = doctor("--write=0", env=env, cwd=tmp_path, code=0)
    assert found["configuration"]["verdict"] == "unknown"
    assert words in found["configuration"]["what"]
    assert found["ranks by mpiexec"]["verdict"] == "ok"


def test_a_grace_that_is_shorter_than_a_save_is_bad_where_the_run_is(tmp_path):
    (tmp_path / "train.py").write_text(TRAINING)
    subprocess.run([sys.executable, "train.py", "run"], cwd=tmp_path, env=child_environment(), check=True, timeout=60)
    with EmulatedCluster(nodes=2, partitions=default_partitions(2.0), user_signal=False, requeue=False) as cluster:
        found = doctor("run", "--write=0", env=child_environment(cluster.environ), cwd=tmp_path, code=1)
        (tmp_path / "no").mkdir()
        other = doctor("no", "--write=0", "--partition=nope", env=child_environment(cluster.environ), cwd=tmp_path,
                       code=1)  # fmt: skip
    assert found["time of a save"]["verdict"] == "ok"
    assert found["grace of a preemption"]["verdict"] == "bad"
    assert "grace 2 s, a save takes" in found["grace of a preemption"]["what"]
    assert "or ask for GraceTime=" in found["grace of a preemption"]["try"]
    assert found["warning of a preemption"]["verdict"] == found["requeue"]["verdict"] == "warn"
    assert other["partition"]["what"] == "there is no partition nope"


@pytest.mark.full
def test_the_probe_maps_signals_in_the_emulator(tmp_path, monkeypatch):
    folder = tmp_path / 'a b $HOME "q" %j'
    folder.mkdir()
    with EmulatedCluster(nodes=2) as cluster:
        for name, value in mpi_environment(cluster.environ).items():
            monkeypatch.setenv(name, value)
        said: list[str] = []
        with probe(the_subject(str(folder), None), Asked(gap=0.8, wait=120), said.append) as pending:
            found = as_json(pending.result(said.append))
    reached = {(row["launcher"], row["event"]): row["reached"] for row in found["signals"]}
    assert list(reached["srun", "scancel -s USR1"].values()) == ["none", "none", "all", "all", "all"]
    assert list(reached["srun", "scancel -b -s USR1"].values()) == ["all", "none", "none", "none", "none"]
    assert list(reached["srun", "scancel --full -s USR1"].values()) == ["all"] * 5
    assert list(reached["srun", "kill -USR1 of the launcher"].values()) == ["none", "none", "all", "all", "all"]
    assert reached["mpiexec", "kill -USR1 of the launcher"]["ranks here"] == "all"
    assert found["signal_line"] == "#SBATCH --requeue --open-mode=append --signal=B:USR1@120"
    assert found["wrapper"] == "exec hpcresume launch --mpi srun --run=RUN -- python train.py"
    assert said[0].startswith("job ")
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


def test_a_probe_that_slurm_refuses_leaves_nothing(tmp_path):
    with EmulatedCluster(nodes=1) as cluster:
        done = subprocess.run(
            hpcresume("doctor", "--probe", "--write=0", "--partition=nope"), env=child_environment(cluster.environ),
            cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert done.returncode == 69, done.stderr
    assert "sbatch refused the probe" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_path_behind_probe_is_the_path():
    params = command.make_context("doctor", ["--probe", "runs/a", "--nodes", "3"]).params
    assert (params["probe"], params["path"], params["nodes"]) == ("quick", "runs/a", 3)
    assert command.make_context("doctor", ["--probe=full"]).params["probe"] == "full"


def test_wrong_words_are_refused(tmp_path, monkeypatch, capsys):
    assert main(["doctor", "--write=lots"]) == 2
    assert "no size" in capsys.readouterr().err
    assert main(["doctor", "--probe=half"]) == 2
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert main(["doctor", "--probe"]) == 2
    assert "this is a job" in capsys.readouterr().err
    assert main(["doctor", ""]) == 78
