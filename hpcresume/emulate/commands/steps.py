"""The table of `squeue --steps`: what runs inside jobs now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from hpcresume.emulate.commands.fields import run_time
from hpcresume.emulate.hostlist import compress
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.slurm_time import used_text
from hpcresume.io.users import user_name

__all__ = ["STEPS", "STEP_LETTERS", "step_rows"]

STEPS = "%.15i %.8j %.9P %.8u %.9M %N"
STEP_LETTERS = {
    "i": ("STEPID", "id"), "j": ("NAME", "name"), "P": ("PARTITION", "partition"), "u": ("USER", "user"),
    "M": ("TIME", "used"), "N": ("NODELIST", "nodes"), "A": ("NTASKS", "tasks"),
}  # fmt: skip
"""Letter of --format → (heading, field)."""


def step_rows(jobs: Sequence[Job], wanted: str) -> list[Mapping[str, str]]:
    """Steps that run, the batch steps among them; `wanted` names some (12.0,12.batch), "" all."""
    now = time.time()
    rows: list[Mapping[str, str]] = []
    for job in (each for each in jobs if each.running):
        common = {"partition": job.partition.name, "user": user_name()}
        for step in (each for each in job.steps if each.end is None):
            rows.append({**common, "id": f"{job.id}.{step.number}", "name": step.name, "tasks": str(sum(step.tasks)),
                         "used": used_text(now - step.start), "nodes": compress(step.nodes)})  # fmt: skip
        rows.append({**common, "id": f"{job.id}.batch", "name": "batch", "tasks": "1",
                     "used": used_text(run_time(job, now)), "nodes": job.nodes[0]})  # fmt: skip
    names = set(filter(None, wanted.split(",")))
    return [row for row in rows if not names or row["id"] in names or row["id"].partition(".")[0] in names]
