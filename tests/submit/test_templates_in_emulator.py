"""Every script of sbatch_templates/, its first lines filled in, under everything that can happen to a job.

The event happens as `OUTCOMES` says, the job comes back from its newest generation, and each rank's final state is that
of a training that nothing disturbed, computed in this process without hpcresume. The emulated cluster runs real MPI and
real torchrun; apptainer is a stand-in, which takes apptainer's words and runs the ranks outside of any image.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcresume.emulate.cluster import EmulatedCluster, JobState
from hpcresume.io.paths import RunPaths, parse_generation_name
from hpcresume.ops.resources import template_path
from tests.submit.matrix_training import expected
from tests.submit.scripts import stand_in
from tests.submit.test_render import APPTAINER
from tests.support.launching import ledger, left_behind, wait_until
from tests.support.sampling import sampled

TRAINING = Path(__file__).with_name("matrix_training.py")
STEPS = 150
TEMPLATES = ["srun", "mpiexec", "torchrun", "apptainer", "array", "submitit"]


@dataclass(frozen=True)
class Outcome:
    """What an event has to do to the attempt that it meets.

    Attributes:
        supervisor: the warning that the supervisor in the batch step is sent.
        ranks: the warning that the ranks stop at together, with a commit; None when they are killed without one.
        cause: what the supervisor names.
        slurm: Slurm's state of that start of the job.
        step: the next attempt restores a generation of this step or a later one.
    """

    supervisor: str | None
    ranks: str | None
    cause: str | None
    slurm: str
    step: int


OUTCOMES = {
    #                       supervisor  ranks      cause           Slurm's state  step
    "preempt-usr1": Outcome("SIGUSR1", "SIGUSR1", "preempted",    "REQUEUED",    40),
    "preempt-term": Outcome(None,      "SIGTERM", "preempted",    "REQUEUED",    40),
    "time-limit":   Outcome("SIGUSR1", "SIGUSR1", "walltime",     "REQUEUED",     1),
    "rank-killed":  Outcome(None,      None,      "crash",        "REQUEUED",    25),
    "node-killed":  Outcome(None,      None,      "node-failure", "NODE_FAIL",   25),
}  # fmt: skip
"""The preemptions and the kills come after step 40, a generation is written every 25 steps."""
EVENTS = ["finished", *OUTCOMES]

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

    def met(self, event: str) -> list[bool]:
        """Which of the jobs the event happens to: one task of an array, but all have the same time limit."""
        return [event != "finished" and (number == 0 or event == "time-limit") for number in range(len(self.runs))]

    def log(self) -> str:
        """All that the jobs printed."""
        paths = [*self.folder.glob("slurm-*.out"), *self.folder.glob("runs/*/submitit/*.err")]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in paths)

    def begins(self, run: str) -> list[list[int]]:
        """For each rank of a run the steps that the training's own loop began with, attempt by attempt."""
        texts = [(self.folder / "out" / run / f"{rank}.begins").read_text() for rank in range(4)]
        return [[int(line) for line in text.split()] for text in texts]

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


def happen(event: str, case: Case, jobs: list[str]) -> None:
    """Let it happen to the first job, as soon as all have saved something and it is not done; the time limit to all."""
    if event == "finished":
        return
    if event == "time-limit":  # once is enough: on a busy machine a start alone may take longer than the time left
        for job in jobs:
            wait_until(lambda job=job: case.cluster.job(job).restarts or case.cluster.job(job).over, 120)
            case.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10", check=False)
        return
    case.wait_for_step(40)
    if event == "rank-killed":
        case.cluster.kill_rank(jobs[0], 1)
    elif event == "node-killed":
        nodes = case.cluster.run("squeue", "--noheader", f"--jobs={jobs[0]}", "--format=%N").stdout.strip()
        case.cluster.kill_node(case.cluster.run("scontrol", "show", "hostnames", nodes).stdout.split()[-1])
    else:
        case.cluster.preempt(jobs[0])


def check_first_attempt(run: Path, job: JobState, outcome: Outcome) -> None:
    """The event happened, was told to whom it should, was heard, and was called by its name."""
    session, supervisor = ledger(run, 1, "ledger.jsonl"), ledger(run, 1)
    told = [each["signal"] for each in supervisor if each["event"] == "warning-received"]
    if outcome.ranks is not None:  # a lost node has the end sequence of Slurm reach the supervisor as well
        assert told[:1] == ([outcome.supervisor] if outcome.supervisor else [])
    heard = [each["signal"] for each in session if each["event"] == "warning"]
    stopped = [each["why"] for each in session if each["event"] == "stop"]
    assert heard[:1] == ([outcome.ranks] if outcome.ranks else [])
    assert stopped == ([f"warned by {outcome.ranks}"] if outcome.ranks else [])
    assert [each["cause"] for each in supervisor if each["event"] == "ended"] == [outcome.cause]
    assert (job.attempts[0].state, job.attempts[0].requeued) == (outcome.slurm, True)


def check_second_attempt(run: Path, outcome: Outcome) -> int:
    """It went on from the newest generation of the first, and not from nothing; the step of that."""
    saved = [each["generation"] for each in ledger(run, 1, "ledger.jsonl") if each["event"] == "saved"]
    began = [each for each in ledger(run, 2, "ledger.jsonl") if each["event"] in ("restored", "fresh-start")]
    assert [(each["event"], each.get("generation")) for each in began] == [("restored", saved[-1])]
    step, attempt = parse_generation_name(saved[-1]) or (-1, -1)
    assert (step >= outcome.step, attempt) == (True, 1), saved
    assert [each["cause"] for each in ledger(run, 2) if each["event"] == "ended"] == ["done"]
    return step


def check_undisturbed(run: Path, job: JobState) -> None:
    """One attempt, done."""
    assert (job.restarts, RunPaths(run).attempt_numbers()) == (0, [1])
    assert [each["cause"] for each in ledger(run, 1) if each["event"] == "ended"] == ["done"]


SAMPLED = {
    ("srun", "preempt-usr1"), ("mpiexec", "rank-killed"), ("torchrun", "preempt-term"), ("apptainer", "node-killed"),
    ("array", "finished"), ("submitit", "time-limit"),
}  # fmt: skip
CELLS = [(template, event) for template in TEMPLATES for event in EVENTS]


@pytest.mark.parametrize(("template", "event"), sampled(CELLS, lambda cell: cell in SAMPLED))
def test_a_job_made_from_a_template_ends_as_if_nothing_had_been(template, event, surroundings, monkeypatch):
    if event == "time-limit":  # a minute for each attempt (Slurm's unit), and the warning early in it
        monkeypatch.setenv("MATRIX_PAUSE", "0.16" if template == "torchrun" else "0.08")
    with EmulatedCluster(nodes=3, cpus=4, user_signal=event != "preempt-term") as cluster:
        case = Case(template, surroundings, cluster)
        jobs = case.submit(event)
        happen(event, case, jobs)
        cluster.wait(*jobs, timeout=150)
        ended = [cluster.job(job) for job in jobs]
    assert [job.state for job in ended] == ["COMPLETED"] * len(jobs), case.log()
    for name, job, met in zip(case.runs, ended, case.met(event), strict=True):
        run = surroundings / "runs" / name
        try:
            begins = [0]
            if met:
                check_first_attempt(run, job, OUTCOMES[event])
                begins.append(check_second_attempt(run, OUTCOMES[event]))
            else:
                check_undisturbed(run, job)
            assert case.begins(name) == [begins] * 4
            assert case.finals(name) == expected(STEPS)
            assert (run / "DONE").exists()
        except AssertionError:
            print(case.log())
            raise
    assert left_behind("MATRIX_OUT", str(surroundings / "out")) == []


SMALL = """\
import os
import hpcresume as hr

with hr.session(os.environ["HPCRESUME_RUN"]) as s:
    for _ in s.steps(3):
        pass
print("trained", os.environ["HPCRESUME_RUN"])
"""


def test_two_copies_of_a_template_with_two_names_are_two_runs(surroundings):
    """In one folder, with nothing changed but the first lines; the second job is no continuation of the first."""
    (surroundings / "train.py").write_text(SMALL)
    text = template_path("srun.sbatch").read_text()
    text = re.sub(r"--nodes=\d+", "--nodes=1", re.sub(r"--ntasks-per-node=\d+", "--ntasks-per-node=1", text))
    names = ["small", "large one"]
    with EmulatedCluster(nodes=2, cpus=1) as cluster:
        for name in names:
            script = surroundings / f"{name}.sbatch"
            script.write_text(text.replace("--job-name=my-run\n", f'--job-name="{name}"\n'))
            cluster.submit(script, cwd=surroundings)
        cluster.wait(timeout=60)
        jobs = cluster.jobs()
    logs = [job.output.read_text() for job in jobs]
    assert [(job.name, job.state) for job in jobs] == [(name, "COMPLETED") for name in names], logs
    assert all(f"trained runs/{name}" in log for name, log in zip(names, logs, strict=True)), logs
    assert sorted(path.name for path in (surroundings / "runs").iterdir()) == sorted(names)
    assert all((surroundings / "runs" / name / "DONE").exists() for name in names)
