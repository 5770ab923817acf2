"""Every sbatch template is a valid script that asks for what a requeued job needs."""

from __future__ import annotations

import subprocess

import pytest

from hpcresume.ops.resources import template_path

FOLDER = template_path("srun.sbatch").parent
NAMES = sorted(path.name for path in FOLDER.glob("*.sbatch"))


def test_there_is_one_for_every_way_in():
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {
        "apptainer.sbatch", "array.sbatch", "mpiexec.sbatch", "srun.sbatch", "submitit_job.py", "torchrun.sbatch",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_valid_shell(name):
    subprocess.run(["bash", "-n", str(template_path(name))], check=True, timeout=10)


def test_the_submitit_template_is_valid_python():
    compile(template_path("submitit_job.py").read_text(), "submitit_job.py", "exec")


@pytest.mark.parametrize("name", NAMES)
def test_a_template_asks_to_be_requeued_warned_and_to_keep_its_log(name):
    lines = template_path(name).read_text().splitlines()
    for option in ("--requeue", "--open-mode=append", "--signal=B:USR1@"):
        assert any(line.startswith(f"#SBATCH {option}") for line in lines), option


@pytest.mark.parametrize("name", NAMES)
def test_no_command_stands_before_the_last_sbatch_line(name):
    """Slurm stops reading options at the first line that is neither blank nor a comment (sbatch(1))."""
    lines = template_path(name).read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") or not line.strip() for line in lines[: last + 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_template_becomes_the_supervisor(name):
    commands = [line for line in template_path(name).read_text().splitlines() if line.startswith("exec ")]
    assert [line.split()[:3] for line in commands] == [["exec", "hpcresume", "launch"]]
