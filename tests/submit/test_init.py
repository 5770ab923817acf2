"""`hpcresume init`: its files run as they are, under a real mpiexec, are warned, come back, and end the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcresume.cli.main import main
from hpcresume.config.job import load_job
from hpcresume.submit import skeleton
from hpcresume.submit.script import render
from tests.submit.test_render import shellcheck
from tests.support.launching import ledger, wait_until
from tests.support.mpi import child_environment

FILES = ["job.sbatch", "job.yaml", "train.py"]


@pytest.fixture
def call(capsys):
    """Call the command line; (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_it_makes_three_files_that_belong_together(call, tmp_path):
    folder = tmp_path / "my project"
    code, out, _ = call("init", folder)
    assert code == 0
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert "hpcresume emulate" in out
    spec = load_job(folder / "job.yaml").spec
    assert (spec.name, spec.run_directory) == ("my-project", "runs/my-project")
    script = (folder / "job.sbatch").read_text()
    assert script.split("\n", 2)[2] == render(spec).split("\n", 2)[2]
    assert shellcheck(script) == ""
    compile((folder / "train.py").read_text(), "train.py", "exec")


def test_it_replaces_nothing_without_being_told_to(call, tmp_path):
    (tmp_path / "train.py").write_text("mine")
    code, _, err = call("init", tmp_path)
    assert (code, "train.py exist already" in err, os.listdir(tmp_path)) == (78, True, ["train.py"])
    assert (tmp_path / "train.py").read_text() == "mine"
    assert call("init", tmp_path, "--force")[0] == 0
    assert (tmp_path / "train.py").read_text() != "mine"
    assert sorted(os.listdir(tmp_path)) == FILES


def test_a_dry_run_makes_nothing(call, tmp_path):
    code, out, _ = call("init", tmp_path / "x", "--dry-run", "--json")
    assert (code, json.loads(out)["files"], (tmp_path / "x").exists()) == (0, FILES, False)


@pytest.mark.parametrize("name", ["a b", "yes", "1e3", "it's", 'q"q', "null", "ünï", "- x", "a: b", "$(reboot)", "#"])
def test_any_name_is_the_job_s_name_letter_for_letter(call, tmp_path, name):
    assert call("init", tmp_path, "--name", name)[0] == 0
    assert load_job(tmp_path / "job.yaml").spec.name == name
    assert f"runs/{name}" in eval((tmp_path / "train.py").read_text().split('"HPCRESUME_RUN", ')[1].split("))")[0])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a\nb", "name: holds the control character U+000A"),
        ("a\u202eb", "name: holds the control character U+202E"),
        ("a/b", "name: 'a/b' is not of the form wanted"),
        ("", "name: is empty"),
        ("..", "name: '..' is a folder's name"),
    ],
)
def test_a_name_that_cannot_be_one_is_an_error_that_says_where_it_was_given(call, tmp_path, name, says):
    code, _, err = call("init", tmp_path / "x", "--name", name)
    assert (code, (tmp_path / "x").exists()) == (78, False)
    assert err.startswith(f"error: {says}")
    assert "\nwhere: --name\n" in err


OURS = '--config=lint.isort.known-first-party=["hpcresume"]'
"""Whether there is a folder of that name where the tests run or not."""


@pytest.mark.parametrize("training", ["torch", "numpy"])
@pytest.mark.parametrize("mpi", [True, False])
def test_all_trainings_are_python_and_formatted(training, mpi, monkeypatch, tmp_path):
    monkeypatch.setattr(skeleton, "_has", lambda module: mpi)
    text = skeleton.make_skeleton(tmp_path, training=training)["train.py"]
    assert ("mpi4py" in text, "torch" in text) == (mpi, training == "torch")
    for words in (["check", "--ignore=ANN,D,S,T20", OURS], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length=120", "-"],
            input=text, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, text + done.stdout + done.stderr


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The batch script as bash runs it, with two ranks under mpiexec, since there is no srun here."""
    environ = child_environment({"OMPI_MCA_btl": "^ofi", "SLURM_NTASKS": "2"})
    log = (folder / "log").open("ab")
    with log:
        return subprocess.Popen(["bash", "job.sbatch"], cwd=folder, env=environ, stdout=log, stderr=log)


def saw(folder: Path, words: str) -> bool:
    """Whether the log has these words by now."""
    return words in (folder / "log").read_text()


@pytest.mark.mpi
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("training", "result"), [("numpy", "weights.npy"), ("torch", "model.pt")])
def test_the_job_is_warned_comes_back_and_ends_as_if_nothing_had_been(call, tmp_path, training, result):
    folders = {name: tmp_path / name for name in ("warned", "quiet")}
    processes = {}
    for name, folder in folders.items():
        assert call("init", folder, "--training", training, "--name", "a b")[0] == 0
        processes[name] = start(folder)
    wait_until(lambda: saw(folders["warned"], "step 100 "), 60)
    processes["warned"].send_signal(signal.SIGUSR1)
    assert processes["warned"].wait(60) == 75, (folders["warned"] / "log").read_text()
    assert not (folders["warned"] / result).exists()
    again = start(folders["warned"])
    for process in (again, processes["quiet"]):
        assert process.wait(90) == 0, (folders["warned"] / "log").read_text()
    assert (folders["warned"] / "log").read_text().count("step 100 ") == 1
    assert (folders["warned"] / "runs" / "a b" / "DONE").exists()
    assert final(folders["warned"] / result) == final(folders["quiet"] / result)
    # The job file's own rhythm, not the default of hr.session: 50 steps.
    steps = {path.name[:13] for path in (folders["quiet"] / "runs" / "a b" / "generations").iterdir()}
    assert steps >= {"g000000000350", "g000000000400"}
    begin = time.monotonic()
    assert start(folders["warned"]).wait(30) == 0
    assert time.monotonic() - begin < 20, "a finished run starts no rank"


def final(path: Path) -> bytes:
    """The bytes of the final state."""
    if path.suffix == ".npy":
        return path.read_bytes()
    import torch

    return b"".join(tensor.numpy().tobytes() for tensor in torch.load(path, weights_only=True).values())


@pytest.mark.mpi
@pytest.mark.timeout(150)
def test_it_runs_at_once_in_the_emulator_and_can_be_submitted_there(call, tmp_path):
    """What the command itself tells to try, letter for letter."""
    _, out, _ = call("init", tmp_path / "a b", "--training", "numpy")
    (line,) = [line for line in out.splitlines() if line.startswith("try it here:")]
    environ = child_environment({"OMPI_MCA_btl": "^ofi"})
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    command = line.partition(":")[2]
    done = subprocess.run(
        ["bash", "-c", command], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ends = [each["cause"] for attempt in (1, 2) for each in ledger(tmp_path / "a b" / "runs" / "a-b", attempt)
            if each["event"] == "ended"]  # fmt: skip
    assert ends == ["preempted", "done"], "what it tells to try shows a preemption, however fast the machine is"
    assert (tmp_path / "a b" / "weights.npy").exists()
    inside = "set -e; hpcresume submit --set run=runs/again -- --hold; ! hpcresume submit --set run=runs/again"
    words = [sys.executable, "-m", "hpcresume", "emulate", "shell", "--quiet", "--", "bash", "-c", inside]
    done = subprocess.run(words, env=environ, cwd=tmp_path / "a b", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "watch it:  squeue --jobs=" in done.stdout
    assert "this run has a job already: job" in done.stderr
    assert "not checked: partition" not in done.stderr
