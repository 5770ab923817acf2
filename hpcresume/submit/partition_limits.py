"""What a partition does not allow a job, and what it leaves of the warning. Asks nobody but the run's own measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import parse_time_limit
from hpcresume.errors import ConfigError
from hpcresume.slurm.submission import Partition
from hpcresume.submit.lead import warning_lead

__all__ = ["broken_limits", "grace_note"]

TIME_VARIABLE = "SBATCH_TIMELIMIT"
"""The time limit of a job whose script names none (sbatch(1), INPUT ENVIRONMENT VARIABLES)."""


def broken_limits(spec: JobSpec, found: Partition, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What speaks against this job there, and what to try.

    Args:
        spec: a checked job.
        found: the partition.
        environ: what sbatch will see.
    """
    nodes = spec.resources.nodes
    for most, words in ((found.nodes, "has only"), (found.max_nodes, "allows only")):
        if most is not None and nodes > most:
            yield f"{found.name} {words} {most} nodes, and the job wants {nodes}", "resources.nodes"
            break
    if not found.up:
        yield f"{found.name} is not up: the job would wait", "another resources.partition"
    yield from _default_time(spec, found, environ) if spec.resources.time is None else _time(spec.resources.time, found)


def _time(wanted: str, found: Partition) -> Iterator[tuple[str, str]]:
    most = _seconds(found.max_time)
    limit = parse_time_limit(wanted)
    if most is not None and (limit is None or limit > most):
        yield (
            f"{found.name} allows {found.max_time}, and the job wants {wanted}",
            "resources.time; the run comes back anyway",
        )


def _default_time(spec: JobSpec, found: Partition, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A job that names no limit has the partition's DefaultTime, else its MaxTime (slurm.conf(5))."""
    text = environ.get(TIME_VARIABLE) or found.default_time or found.max_time
    limit, lead = _seconds(text), warning_lead(spec)
    if limit is not None and lead >= limit:
        giver = f"${TIME_VARIABLE}" if TIME_VARIABLE in environ else found.name
        what = f"{giver} gives {text} to a job that names no time, and the warning comes {lead:g} s before the end"
        yield what, "resources.time, or a shorter requeue.warning_lead"


def _seconds(text: str | None) -> float | None:
    """Of a limit as Slurm writes it, where a number alone is minutes; None for none, and for what is not understood."""
    if text is None:
        return None
    try:
        return parse_time_limit(f"{text}min" if text.isascii() and text.isdecimal() else text)
    except ConfigError:
        return None


def grace_note(spec: JobSpec, found: Partition) -> str:
    """What a preemption there leaves, when that is less than the warning; else nothing."""
    lead = warning_lead(spec)
    if found.grace and found.grace < lead:
        return f"; a preemption there leaves {found.grace} s, not the {lead:g} s of the warning"
    return ""
