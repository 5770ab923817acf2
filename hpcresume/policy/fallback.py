"""When a run that gets nowhere asks for other resources, and which. Pure.

Nothing here is done unless the user named a fallback: another partition may cost more, and fewer nodes train slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcresume.errors import ConfigError
from hpcresume.model import Cause
from hpcresume.policy.budgets import PastAttempt, since_release

__all__ = ["Fallback", "JobShape", "Resources", "failures_in_a_row", "fallback_due", "resources_after"]

_FAILURES = frozenset({Cause.CRASH, Cause.NODE_FAILURE, Cause.OUT_OF_MEMORY, Cause.STORAGE, Cause.UNKNOWN})


@dataclass(frozen=True)
class Fallback:
    """What to ask for instead, and when. Without `partition` and `nodes` there is no fallback.

    Attributes:
        partition: move there.
        nodes: make do with so few.
        after_failures: after so many failures in a row without checkpoint progress.
        after_preemptions: after so many preemptions since the run began or was released.
        after_waiting: after so many seconds in the queue.
    """

    partition: str | None = None
    nodes: int | None = None
    after_failures: int | None = None
    after_preemptions: int | None = None
    after_waiting: float | None = None

    def check(self) -> None:
        """Whether it can ever happen, and to anything.

        Raises:
            ConfigError: a condition without a fallback, or a fallback without a condition.
        """
        conditions = (self.after_failures, self.after_preemptions, self.after_waiting)
        conditional = any(each is not None for each in conditions)
        if conditional and not self.named:
            raise ConfigError("falls back to nothing", where="fallback", hint="name a partition, or fewer nodes")
        if self.named and not conditional:
            raise ConfigError("never happens", where="fallback", hint="after failures, after preemptions, or waiting")

    @property
    def named(self) -> bool:
        """Is there something to fall back to?"""
        return self.partition is not None or self.nodes is not None


@dataclass(frozen=True)
class JobShape:
    """What a job asks for now: its partition (or several with commas), nodes, tasks and processors."""

    partition: str
    nodes: int
    tasks: int
    cpus: int


@dataclass(frozen=True)
class Resources:
    """What a job shall ask for. `nodes` is the least and the most; None leaves things as they are."""

    partition: str | None = None
    nodes: tuple[int, int] | None = None
    tasks: int | None = None
    cpus: int | None = None


def failures_in_a_row(attempts: Sequence[PastAttempt]) -> int:
    """How many of the newest attempts failed, whatever the cause, since one made checkpoint progress."""
    best, count = -1, 0
    for each in attempts:
        if each.released:
            count = 0
        if each.committed is not None and each.committed > best:
            best, count = each.committed, 0
        elif each.cause in _FAILURES:
            count += 1
    return count


def fallback_due(fallback: Fallback, attempts: Sequence[PastAttempt]) -> str:
    """Why the next attempt asks for the fallback, in words; "" when it does not. The newest attempt is last."""
    if not fallback.named:
        return ""
    failures = failures_in_a_row(attempts)
    if fallback.after_failures is not None and failures >= fallback.after_failures:
        return f"{failures} failures in a row"
    preemptions = sum(each.cause is Cause.PREEMPTED for each in since_release(attempts))
    if fallback.after_preemptions is not None and preemptions >= fallback.after_preemptions:
        return f"{preemptions} preemptions"
    return ""


def resources_after(fallback: Fallback, shape: JobShape, *, keep_partition: bool) -> Resources:
    """What to ask for instead of `shape`.

    Fewer nodes are asked for as a range, so that a job still gets all its nodes where they are free. Slurm counts
    tasks and processors of a waiting job apart from its nodes (seen on 22.05): they shrink with the least.

    Args:
        fallback: the user's choice.
        shape: what the job asks for now.
        keep_partition: wait in both partitions, for a job that merely waited too long; else leave the old one.
    """
    partition = fallback.partition
    if partition is not None:
        others = [each for each in shape.partition.split(",") if each and each != partition] if keep_partition else []
        partition = ",".join([*others, partition])
        partition = None if partition == shape.partition else partition
    if fallback.nodes is None or fallback.nodes >= shape.nodes:
        return Resources(partition)
    least = fallback.nodes
    return Resources(
        partition,
        nodes=(least, shape.nodes),
        tasks=max(least, shape.tasks * least // shape.nodes),
        cpus=max(least, shape.cpus * least // shape.nodes),
    )
