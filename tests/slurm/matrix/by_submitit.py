"""Submits a cell's training through submitit's AutoExecutor, and prints the jobs' numbers as a JSON list.

python -m tests.slurm.matrix.by_submitit WAY OUT PARAMETERS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import submitit

import hpcresume as hr
from tests.slurm.matrix.training import train


def main(way: str, out: Path, parameters: dict[str, object]) -> list[str]:
    """One job of two nodes, or an array of two tasks with a node and a run each."""
    executor = submitit.AutoExecutor(folder=str(out / "submitit"), cluster="slurm")
    executor.update_parameters(**parameters)
    if way == "array":
        return [job.job_id for job in hr.Resumable(train, run=str(out / "run")).map_array(executor, [0, 1])]
    return [executor.submit(hr.Resumable(train, run=str(out / "run"))).job_id]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))))
