"""A job's resources in submitit's words, for its AutoExecutor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpcresume.config.durations import parse_duration
from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import parse_time_limit
from hpcresume.submit.sbatch_options import asked

__all__ = ["Parameter", "executor_parameters"]

Parameter = tuple[str, object, str]
"""Name, value, and the key of the job that it comes from."""

_SLURM = {"partition", "account", "qos", "constraint", "gres"}
"""sbatch options that submitit knows by name; all others go into its slurm_additional_parameters."""
_GENERAL = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "time", "output"}


def executor_parameters(spec: JobSpec, set_up: Sequence[str]) -> list[Parameter]:
    """What `executor.update_parameters` takes, the name apart.

    Args:
        spec: a checked job.
        set_up: shell lines that go before the function.
    """
    want = spec.resources
    found: list[Parameter] = [
        ("nodes", want.nodes, "resources.nodes"),
        ("tasks_per_node", want.ntasks_per_node, "resources.ntasks_per_node"),
    ]
    if want.cpus_per_task is not None:
        found.append(("cpus_per_task", want.cpus_per_task, "resources.cpus_per_task"))
    limit = None if want.time is None else parse_time_limit(want.time)
    if limit is not None:
        found.append(("timeout_min", math.ceil(limit / 60), "resources.time"))
    found += [(f"slurm_{o.name}", o.value, o.field) for o in asked(spec) if o.name in _SLURM]
    lead = max(1, round(parse_duration(spec.requeue.warning_lead)))
    found.append(("slurm_signal_delay_s", lead, "requeue.warning_lead"))
    others: dict[str, object] = {"requeue" if spec.requeue.enabled else "no-requeue": True}
    others |= {o.name: True if o.value is None else o.value for o in asked(spec) if o.name not in _SLURM | _GENERAL}
    found.append(("slurm_additional_parameters", others, "resources"))
    if set_up:
        found.append(("slurm_setup", list(set_up), "environment"))
    return found
