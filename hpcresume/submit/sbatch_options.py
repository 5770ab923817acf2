"""What a job asks of sbatch, option by option, in the order in which a person reads them."""

from __future__ import annotations

from dataclasses import dataclass

from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import parse_time_limit, slurm_time
from hpcresume.submit.lead import warning_lead

__all__ = ["SbatchOption", "asked", "fixed"]


@dataclass(frozen=True)
class SbatchOption:
    """`--name=value`; a value of None is an option without one. `field` is the key that it comes from."""

    name: str
    value: str | int | None
    field: str


def asked(spec: JobSpec) -> list[SbatchOption]:
    """The options that a person chooses."""
    want = spec.resources
    limit = None if want.time is None else slurm_time(parse_time_limit(want.time))
    least = None if want.time_min is None else slurm_time(parse_time_limit(want.time_min))
    values: list[tuple[str, str | int | None, str]] = [
        ("job-name", spec.name, "name"),
        ("partition", want.partition, "resources.partition"),
        ("account", want.account, "resources.account"),
        ("qos", want.qos, "resources.qos"),
        ("reservation", want.reservation, "resources.reservation"),
        ("nodes", want.nodes, "resources.nodes"),
        ("ntasks-per-node", want.ntasks_per_node, "resources.ntasks_per_node"),
        ("cpus-per-task", want.cpus_per_task, "resources.cpus_per_task"),
        ("gpus-per-node", want.gpus_per_node, "resources.gpus_per_node"),
        ("gpus-per-task", want.gpus_per_task, "resources.gpus_per_task"),
        ("gres", want.gres, "resources.gres"),
        ("mem", want.mem, "resources.mem"),
        ("mem-per-cpu", want.mem_per_cpu, "resources.mem_per_cpu"),
        ("time", limit, "resources.time"),
        ("time-min", least, "resources.time_min"),
        ("constraint", want.constraint, "resources.constraint"),
        ("nodelist", want.nodelist, "resources.nodelist"),
        ("exclude", want.exclude, "resources.exclude"),
        ("array", want.array, "resources.array"),
        ("output", spec.log, "log"),
    ]
    found = [SbatchOption(name, value, field) for name, value, field in values if value is not None]
    if want.exclusive:
        found.append(SbatchOption("exclusive", None, "resources.exclusive"))
    for index, option in enumerate(want.options):
        name, equals, value = option.removeprefix("--").partition("=")
        found.append(SbatchOption(name, value if equals else None, f"resources.options[{index}]"))
    return found


def fixed(spec: JobSpec) -> list[SbatchOption]:
    """The options without which a job cannot come back: requeue, one log for all attempts, the warning."""
    return [
        SbatchOption("requeue" if spec.requeue.enabled else "no-requeue", None, "requeue.enabled"),
        SbatchOption("open-mode", "append", "log"),
        SbatchOption("signal", f"B:{spec.requeue.warning_signal}@{warning_lead(spec)}", "requeue.warning_lead"),
    ]
