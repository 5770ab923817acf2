"""The scripts in sbatch_templates/: what `hpcresume render` makes of six small jobs, for people to change."""

from __future__ import annotations

from hpcresume.config.job_spec import Container, JobSpec, Resources
from hpcresume.submit.script import render

__all__ = ["PLAIN", "plain_scripts"]

_FILL_IN = "Fill in these lines{}. A run comes back by itself until its training is finished."
_AND_THE_COMMAND = ", and the command in the last one"

_TWO_BY_FOUR = Resources(nodes=2, ntasks_per_node=4, time="04:00:00")
_COMMAND = ("python", "train.py")

PLAIN: dict[str, tuple[JobSpec, str]] = {
    "srun.sbatch": (JobSpec(name="my-run", command=_COMMAND, resources=_TWO_BY_FOUR), ""),
    "mpiexec.sbatch": (JobSpec(name="my-run", command=_COMMAND, starter="mpiexec", resources=_TWO_BY_FOUR), ""),
    "torchrun.sbatch": (
        JobSpec(
            name="my-run",
            command=("train.py",),
            starter="torchrun",
            workers_per_node=4,
            resources=Resources(nodes=2, ntasks_per_node=1, cpus_per_task=16, time="04:00:00"),
        ),
        "One task on each node, the agent; --workers-per-node at the end says how many ranks it starts.",
    ),
    "apptainer.sbatch": (
        JobSpec(name="my-run", command=_COMMAND, resources=_TWO_BY_FOUR, container=Container(image="image.sif")),
        "The ranks run in image.sif, which must hold hpcresume and an MPI that fits the cluster's.",
    ),
    "array.sbatch": (
        JobSpec(
            name="my-run",
            command=_COMMAND,
            resources=Resources(nodes=1, ntasks_per_node=4, time="04:00:00", array="0-9"),
        ),
        "Every task of the array is a run of its own and comes back on its own.",
    ),
    "submitit_job.py": (
        JobSpec(name="my-run", function="train:main", resources=_TWO_BY_FOUR),
        "Then run it where you would run sbatch: python submitit_job.py (it needs submitit).",
    ),
}
"""File name → the job that it shows, and a second line for its head."""


def plain_scripts() -> dict[str, str]:
    """File name → text of every script in sbatch_templates/."""
    return {name: render(spec, heading=_heading(spec, more), plain=True) for name, (spec, more) in PLAIN.items()}


def _heading(spec: JobSpec, more: str) -> str:
    """A batch script's command stands below its first lines, a function's name among them."""
    first = _FILL_IN.format("" if spec.command is None else _AND_THE_COMMAND)
    return "\n".join(filter(None, (first, more)))
