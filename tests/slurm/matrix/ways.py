"""The ways to start a training: what is submitted, and which run and which ranks come of it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.mpi import AS_ROOT, child_environment

__all__ = ["LAUNCH", "WAYS", "Order", "Started", "environment", "submit"]

ROOT = Path(__file__).parents[3]
LAUNCH = {"srun": "srun", "mpiexec": "mpiexec", "torchrun": "torchrun"}
"""The ways through a batch script with `hpcresume launch`, and its --mpi."""
WAYS = (*LAUNCH, "submitit", "array")


@dataclass(frozen=True)
class Order:
    """What a cell wants of its job.

    Attributes:
        way: how it is started.
        out: the cell's folder.
        partition: where it shall run.
        signal: `--signal`; of submitit's ways None means submitit's own.
        limit: its time limit in minutes.
        options: further options of sbatch, name and value.
    """

    way: str
    out: Path
    partition: str
    signal: str | None
    limit: int
    options: Mapping[str, str]


@dataclass(frozen=True)
class Started:
    """A submitted training.

    Attributes:
        job: its job, or the task of the array that the event shall meet.
        run: its run's directory.
        neighbour: the run of the other task.
    """

    job: str
    run: Path
    neighbour: Path | None = None


def environment(cluster: Mapping[str, str], out: Path) -> dict[str, str]:
    """For everything that a cell starts, on the cluster whose environment is given."""
    venv = str(Path(sys.executable).parent)
    mine = {**AS_ROOT, "OMPI_MCA_btl": "^ofi", "MATRIX_OUT": str(out / "results"), "PATH": f"{venv}:{cluster['PATH']}"}
    package = child_environment()["PYTHONPATH"]
    return {**cluster, **mine, "PYTHONPATH": f"{package}:{ROOT}", "OMP_NUM_THREADS": "1"}


def submit(order: Order, env: Mapping[str, str]) -> Started:
    """Submit it as a user would: sbatch and a script, or Python and submitit."""
    runs = [order.out / "run-0", order.out / "run-1"] if order.way == "array" else [order.out / "run"]
    for run in runs:
        (order.out / "results" / run.name).mkdir(parents=True, exist_ok=True)
    if order.way in LAUNCH:
        done = _run(["sbatch", "--parsable", str(_script(order))], env, order.out)
        return Started(done.strip(), runs[0])
    words = [order.way, str(order.out), json.dumps(_parameters(order))]
    jobs = json.loads(_run([sys.executable, "-m", "tests.slurm.matrix.by_submitit", *words], env, order.out))
    return Started(jobs[0], runs[0], runs[1] if len(runs) > 1 else None)


def _script(order: Order) -> Path:
    options = {"partition": order.partition, "nodes": "2", "ntasks-per-node": "1", "time": str(order.limit),
               "open-mode": "append", "output": str(order.out / "job.log"), **order.options}  # fmt: skip
    if order.signal is not None:
        options["signal"] = order.signal
    python = shlex.quote(sys.executable)
    program = str(Path(__file__).with_name("training.py"))
    command = program if order.way == "torchrun" else f"{python} {program}"
    mpi = ["--mpi", LAUNCH[order.way], *(["--workers-per-node", "1"] if order.way == "torchrun" else [])]
    words = ["launch", "--run", str(order.out / "run"), "--pause", "off", *mpi]
    script = order.out / "job.sbatch"
    lines = [f"#SBATCH --{name}{f'={value}' if value else ''}" for name, value in options.items()]
    script.write_text("\n".join([
        "#!/bin/bash", *lines, f"export HPCRESUME_RUN={shlex.quote(str(order.out / 'run'))}",
        "trap '' USR1", f"exec {python} -m hpcresume {' '.join(map(shlex.quote, words))} -- {command}", ""
    ]))  # fmt: skip
    return script


def _parameters(order: Order) -> dict[str, object]:
    """In submitit's words. An array's tasks have a node each and both ranks on it."""
    nodes, tasks = (1, 2) if order.way == "array" else (2, 1)
    more = {name.replace("-", "_"): value or True for name, value in order.options.items()}
    if order.signal is not None:
        more["signal"] = order.signal
    return {"nodes": nodes, "tasks_per_node": tasks, "timeout_min": order.limit, "slurm_partition": order.partition,
            "slurm_srun_args": ["--mpi=pmix"], "slurm_signal_delay_s": 20,
            **({"slurm_additional_parameters": more} if more else {})}  # fmt: skip


def _run(words: Sequence[str], env: Mapping[str, str], cwd: Path) -> str:
    done = subprocess.run(words, env=dict(env), cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
                          stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout


def steps_done(run: Path) -> int:
    """The newest finished step of the newest attempt."""
    files = sorted(run.glob("attempts/*/progress"))
    data = files[-1].read_bytes()[:8] if files else b""
    return int.from_bytes(data, "little") if len(data) == 8 else 0


def logs(out: Path) -> str:
    """All that a cell's jobs printed."""
    paths = [out / "job.log", *sorted((out / "submitit").glob("*.err")), *sorted((out / "submitit").glob("*.out"))]
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-8000:]}" for path in paths if path.exists())
