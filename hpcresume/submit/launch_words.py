"""The options of `hpcresume launch` that a job's requeue section, and its times, stand for."""

from __future__ import annotations

from hpcresume.config.job_spec import JobSpec, Requeue
from hpcresume.config.slurm_options import parse_time_limit, slurm_time

__all__ = ["requeue_words", "time_words"]


def requeue_words(requeue: Requeue) -> list[tuple[str, str]]:
    """(word, key that it comes from), only where something else than the default is wanted."""
    default, found = Requeue(), list[tuple[str, str]]()
    for name, option in _PLAIN.items():
        value = getattr(requeue, name)
        if value != getattr(default, name):
            found.append((f"{option}={value}", f"requeue.{name}"))
    for name, option in _FALLBACK.items():
        value = getattr(requeue.fallback, name)
        if value is not None:
            found.append((f"{option}={value}", f"requeue.fallback.{name}"))
    if requeue.guard is not None:
        found.append(("--guard" if requeue.guard else "--no-guard", "requeue.guard"))
    if not requeue.enabled:
        found.append(("--no-requeue", "requeue.enabled"))
    return found


def time_words(spec: JobSpec) -> list[tuple[str, str]]:
    """As above. Where Slurm may lower the limit of the job, the supervisor has to know what it was."""
    want = spec.resources
    if want.time is None or want.time_min is None:
        return []
    return [(f"--time-limit={slurm_time(parse_time_limit(want.time))}", "resources.time")]


_PLAIN = {
    "max_restarts": "--max-restarts",
    "max_crashes": "--max-crashes",
    "when_held": "--when-held",
    "pause": "--pause",
    "exclude_for": "--exclude-for",
    "exclude_most": "--exclude-most",
    "max_micro_batches": "--micro-batches",
}
_FALLBACK = {
    "partition": "--fallback-partition",
    "nodes": "--fallback-nodes",
    "after_failures": "--fallback-failures",
    "after_preemptions": "--fallback-preemptions",
    "after_waiting": "--fallback-waiting",
}
