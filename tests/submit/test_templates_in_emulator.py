"""Every script of sbatch_templates/, its first lines filled in, under everything that can happen to a job.

It comes back, and each rank's final state is that of a training that nothing disturbed, computed in this process
without hpcresume. The emulated cluster runs real MPI and real torchrun.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from hpcresume.emulate.cluster import EmulatedCluster
from hpcresume.io.paths import RunPaths
from hpcresume.ops.resources import template_path
from tests.submit.matrix_training import expected
from tests.submit.scripts import stand_in
from tests.submit.test_render import APPTAINER
from tests.support.launching import left_behind, wait_until
from tests.support.sampling import sampled

TRAINING = Path(__file__).with_name("matrix_training.py")
STEPS = 150
TEMPLATES = ["srun", "mpiexec", "torchrun", "apptainer", "array", "submitit"]
EVENTS = ["finished", "preempt-usr1", "preempt-term", "time-limit", "rank-killed", "node-killed"]

pytestmark = [pytest.mark.slow, pytest.mark.mpi, pytest.mark.timeout(240)]


def filled(template: str) -> str:
    """What a person does to a template: the size and the time of the job, and the name of the training."""
    text = template_path(f"{template}.sbatch").read_text()
    tasks = {"torchrun": 1, "array": 4}.get(template, 2)
    text = re.sub(r"--ntasks-per-node=\d+", f"--ntasks-per-node={tasks}", text)
    text = re.sub(r"--(time|cpus-per-task|array)=\S+", lambda m: f"--{m[1]}={FILL[m[1]]}", text)
    return text.replace("--workers-per-node 4", "--workers-per-node 2").replace(" train.py", f" {TRAINING}")


FILL = {"time": "00:10:00", "cpus-per-task": "2", "array": "3-4"}


class Case:
    """One template in a folder of its own."""

    def __init__(self, template: str, folder: Path, cluster: EmulatedCluster) -> None:
        self.template, self.folder, self.cluster = template, folder, cluster
        self.lead = 40 if template == "torchrun" else 52  # seconds; torch takes long to start on a busy machine
        self.runs = ["my-run-3", "my-run-4"] if template == "array" else ["my-run"]

    def submit(self, event: str) -> list[str]:
        """The jobs, tasks of an array one by one."""
        if self.template == "submitit":
            return [self._submit_function(event)]
        options = ["--time=1", f"--signal=B:USR1@{self.lead}"] if event == "time-limit" else []
        script = self.folder / "job.sbatch"
        script.write_text(filled(self.template))
        job = self.cluster.submit(*options, script, cwd=self.folder)
        return [f"{job}_3", f"{job}_4"] if self.template == "array" else [job]

    def _submit_function(self, event: str) -> str:
        text = template_path("submitit_job.py").read_text()
        text = text.replace('"train:main"', '"matrix_training:main"').replace(
            '"ntasks_per_node": 4', '"ntasks_per_node": 2'
        )
        if event == "time-limit":
            text = text.replace('"time": "04:00:00"}', '"time": "1min"}, "requeue": {"warning_lead": "52s"}')
            assert "52s" in text
        (self.folder / "submitit_job.py").write_text(text)
        shutil.copy(TRAINING, self.folder)
        done = self.cluster.run(sys.executable, "submitit_job.py", cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr
        return re.search(r"job (\d+);", done.stdout)[1]

    def wait_for_step(self, step: int) -> None:
        """Until every run has passed it."""
        wait_until(lambda: all(progress(self.folder / "runs" / run) >= step for run in self.runs), 90)

    def log(self) -> str:
        """All that the jobs printed."""
        paths = [*self.folder.glob("slurm-*.out"), *self.folder.glob("runs/*/submitit/*.err")]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in paths)

    def finals(self, run: str) -> list[dict[str, object]]:
        """The final state of each rank of a run."""
        return [json.loads((self.folder / "out" / run / f"{rank}.json").read_text()) for rank in range(4)]


def progress(run: Path) -> int:
    """The newest finished step of the newest attempt; -1 before there is any."""
    numbers = RunPaths(run).attempt_numbers()
    try:
        return int.from_bytes(RunPaths(run).attempt(numbers[-1]).progress.read_bytes(), "little")
    except (OSError, IndexError):
        return -1


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """What the jobs find: hpcresume and python, a stand-in for apptainer, the training's settings; and its folder."""
    programs = tmp_path / "bin"
    stand_in(programs, "apptainer", APPTAINER)
    work = tmp_path / "work"
    work.mkdir()
    for name in [each for each in os.environ if each.startswith(("SLURM_", "SBATCH_", "HPCRESUME_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    settings = {"RECORDS": tmp_path, "MATRIX_STEPS": STEPS, "MATRIX_PAUSE": 0.02, "MATRIX_OUT": work / "out",
                "OMPI_MCA_btl": "^ofi", "OMP_NUM_THREADS": 1}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    return work


def happen(event: str, case: Case, job: str) -> None:
    """Let it happen to a job, as soon as it has saved something and is not done."""
    if event == "finished":
        return
    if event == "time-limit":  # once is enough: on a busy machine a start alone may take longer than the time left
        wait_until(lambda: case.cluster.job(job).restarts or case.cluster.job(job).over, 120)
        case.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10", check=False)
        return
    case.wait_for_step(40)
    if event == "rank-killed":
        case.cluster.kill_rank(job, 1)
    elif event == "node-killed":
        nodes = case.cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%N").stdout.strip()
        case.cluster.kill_node(case.cluster.run("scontrol", "show", "hostnames", nodes).stdout.split()[-1])
    else:
        case.cluster.preempt(job)


SAMPLED = {
    ("srun", "preempt-usr1"), ("mpiexec", "rank-killed"), ("torchrun", "preempt-term"), ("apptainer", "node-killed"),
    ("array", "finished"), ("submitit", "preempt-usr1"),
}  # fmt: skip
CELLS = [(template, event) for template in TEMPLATES for event in EVENTS]


@pytest.mark.parametrize(("template", "event"), sampled(CELLS, lambda cell: cell in SAMPLED))
def test_a_job_made_from_a_template_ends_as_if_nothing_had_been(template, event, surroundings, monkeypatch):
    if event == "time-limit":  # a minute for each attempt (Slurm's unit), and the warning early in it
        monkeypatch.setenv("MATRIX_PAUSE", "0.16" if template == "torchrun" else "0.08")
    with EmulatedCluster(nodes=3, cpus=4, user_signal=event != "preempt-term") as cluster:
        case = Case(template, surroundings, cluster)
        jobs = case.submit(event)
        happen(event, case, jobs[0])
        cluster.wait(*jobs, timeout=150)
        ended = [cluster.job(job) for job in jobs]
    assert [job.state for job in ended] == ["COMPLETED"] * len(jobs), case.log()
    assert (ended[0].restarts > 0) == (event != "finished"), case.log()
    for run in case.runs:
        assert case.finals(run) == expected(STEPS), case.log()
        assert (surroundings / "runs" / run / "DONE").exists()
    assert left_behind("MATRIX_OUT", str(surroundings / "out")) == []
