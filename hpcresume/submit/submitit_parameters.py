"""A job's resources in submitit's words: for its Slurm executor, and for the executors of this machine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import parse_time_limit, slurm_time
from hpcresume.submit.lead import warning_lead
from hpcresume.submit.sbatch_options import asked

__all__ = ["NEVER_MINUTES", "Parameter", "local_parameters", "slurm_options", "slurm_parameters"]

Parameter = tuple[str, object, str]
"""Name, value, and the key of the job that it comes from."""

NEVER_MINUTES = 100 * 366 * 24 * 60
"""A hundred years: submitit's local executor has no job without a limit, and two minutes for one that names none."""

_BY_NAME = {"partition", "account", "qos", "constraint", "gres"}
"""sbatch options that submitit knows by name; all others go into its additional_parameters."""
_GENERAL = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "time"}


def slurm_parameters(spec: JobSpec, set_up: Sequence[str]) -> list[Parameter]:
    """What `submitit.SlurmExecutor.update_parameters` takes, `slurm_options` apart.

    Its AutoExecutor drops a value of None, and then Slurm is asked for submitit's own five minutes. The Slurm executor
    itself writes no line for None, so that the partition's default holds, as for a script.

    Args:
        spec: a checked job.
        set_up: shell lines that go before the function.
    """
    want = spec.resources
    limit = None if want.time is None else parse_time_limit(want.time)
    found: list[Parameter] = [
        ("job_name", spec.name, "name"),
        ("nodes", want.nodes, "resources.nodes"),
        ("ntasks_per_node", want.ntasks_per_node, "resources.ntasks_per_node"),
        ("cpus_per_task", want.cpus_per_task, "resources.cpus_per_task"),
        ("time", None if limit is None else math.ceil(limit / 60), "resources.time"),
        ("signal_delay_s", warning_lead(spec), "requeue.warning_lead"),
        ("use_srun", False, "starter"),
    ]
    found += [(option.name, option.value, option.field) for option in asked(spec) if option.name in _BY_NAME]
    if set_up:
        found.append(("setup", list(set_up), "environment"))
    return found


def slurm_options(spec: JobSpec) -> list[Parameter]:
    """What goes into submitit's `additional_parameters`: options of sbatch that win over its own."""
    want = spec.resources
    found: list[Parameter] = [("requeue" if spec.requeue.enabled else "no-requeue", True, "requeue.enabled")]
    if want.time is not None:  # to the second, and UNLIMITED too; submitit counts minutes
        found.append(("time", slurm_time(parse_time_limit(want.time)), "resources.time"))
    others = (option for option in asked(spec) if option.name not in _BY_NAME | _GENERAL)
    found += [(each.name, True if each.value is None else each.value, each.field) for each in others]
    # To the batch step, where the supervisor is; submitit's own form goes to the ranks.
    found.append(("signal", f"B:{spec.requeue.warning_signal}@{warning_lead(spec)}", "requeue.warning_lead"))
    return found


def local_parameters(spec: JobSpec) -> dict[str, object]:
    """What `update_parameters` of an `AutoExecutor` for this machine takes."""
    want = spec.resources
    limit = None if want.time is None else parse_time_limit(want.time)
    return {
        "name": spec.name,
        "nodes": want.nodes,
        "tasks_per_node": want.ntasks_per_node,
        "cpus_per_task": want.cpus_per_task,
        "gpus_per_node": _gpus(spec),
        "timeout_min": NEVER_MINUTES if limit is None else math.ceil(limit / 60),
    }


def _gpus(spec: JobSpec) -> int | None:
    """GPUs of a node by number: the local executor shows a job only as many as it asked for, and else none."""
    want = spec.resources
    if want.gpus_per_node is not None:
        return _count(want.gpus_per_node)
    return None if want.gpus_per_task is None else _count(want.gpus_per_task) * want.ntasks_per_node


def _count(gpus: int | str) -> int:
    """`a100:4,v100:2` are six."""
    return gpus if isinstance(gpus, int) else sum(int(each) for each in re.findall(r"(?:^|:)([0-9]+)(?=,|$)", gpus))
