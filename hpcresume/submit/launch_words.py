"""The options of `hpcresume launch` that a job's requeue section stands for."""

from __future__ import annotations

from hpcresume.config.job_spec import Requeue

__all__ = ["requeue_words"]


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
    if requeue.guard:
        found.append(("--guard", "requeue.guard"))
    if not requeue.enabled:
        found.append(("--no-requeue", "requeue.enabled"))
    return found


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
