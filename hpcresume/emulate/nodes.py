"""Nodes, partitions, and which nodes a job gets. Pure: decides on values, starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcresume.emulate.request import JobRequest

__all__ = ["Allocation", "Node", "Partition", "choose", "could_ever"]


@dataclass
class Node:
    """A machine of the cluster; `used` counts the processors given away, `since` is when it got its reason."""

    name: str
    cpus: int
    used: int = 0
    jobs: int = 0
    down_until: float = 0.0
    state: str = ""
    reason: str = ""
    since: float | None = None

    def up(self, now: float) -> bool:
        """Can jobs start on it?"""
        return now >= self.down_until and not self.state

    @property
    def free(self) -> int:
        """Processors that nobody has."""
        return max(0, self.cpus - self.used)


@dataclass(frozen=True)
class Partition:
    """A queue. Jobs of a higher `tier` take nodes from those of lower ones whose `preempt` is not "off".

    Attributes:
        name: as users write it.
        tier: PriorityTier.
        preempt: what becomes of its preempted jobs: "requeue", "cancel", or "off" for never preempted.
        grace: GraceTime, seconds.
        limit: MaxTime, seconds; None without.
        default_limit: DefaultTime, seconds; None takes MaxTime.
        nodes: its nodes' names, empty for all.
    """

    name: str
    tier: int = 1
    preempt: str = "requeue"
    grace: float = 0.0
    limit: float | None = None
    default_limit: float | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Allocation:
    """Nodes in their order, tasks and processors on each."""

    nodes: tuple[str, ...]
    tasks: tuple[int, ...]
    cpus: tuple[int, ...] = field(default=())


def choose(
    request: JobRequest, nodes: Sequence[Node], partition: Partition, free: Mapping[str, int]
) -> Allocation | None:
    """The nodes for a job, None when they are not free.

    Args:
        request: what it asks for.
        nodes: nodes that are up, in their order.
        partition: its partition.
        free: processors to count as free by node; all of them must be free for a job that wants whole nodes.
    """
    fitting = [node for node in nodes if _may(request, node, partition) and _room(request, node, free) > 0]
    must = [node for node in fitting if node.name in request.nodelist]
    if len(must) < len(request.nodelist):
        return None
    ordered = [*must, *(node for node in fitting if node.name not in request.nodelist)]
    picked = _pick(request, ordered, free)
    if picked is None:
        return None
    names = {node.name for node in picked}
    return _spread(request, [node for node in nodes if node.name in names], free)


def could_ever(request: JobRequest, nodes: Sequence[Node], partition: Partition) -> bool:
    """Could the job run on the whole cluster with nothing else on it?"""
    return choose(request, nodes, partition, {node.name: node.cpus for node in nodes}) is not None


def _may(request: JobRequest, node: Node, partition: Partition) -> bool:
    return node.name not in request.exclude and (not partition.nodes or node.name in partition.nodes)


def _room(request: JobRequest, node: Node, free: Mapping[str, int]) -> int:
    """Tasks that fit on a node now."""
    if request.exclusive and free[node.name] < node.cpus:
        return 0
    if request.overcommit:
        return 10**6 if free[node.name] else 0
    room = free[node.name] // request.cpus_of_a_task
    per_node = request.ntasks_per_node
    if per_node is None:
        return room
    if request.ntasks is None:
        return per_node if room >= per_node else 0
    return min(room, per_node)


def _pick(request: JobRequest, ordered: Sequence[Node], free: Mapping[str, int]) -> list[Node] | None:
    least, ntasks = request.least_nodes, request.ntasks or 0
    if request.nodes is not None and request.nodelist:
        least = max(least, len(request.nodelist))
    most = request.nodes_most or (least if request.nodes is not None else len(ordered))
    picked: list[Node] = []
    for node in ordered:
        if len(picked) >= most or (len(picked) >= least and _tasks(request, picked, free) >= ntasks):
            break
        picked.append(node)
    enough = len(picked) >= least and _tasks(request, picked, free) >= ntasks
    return picked if enough and picked else None


def _tasks(request: JobRequest, nodes: Sequence[Node], free: Mapping[str, int]) -> int:
    return sum(_room(request, node, free) for node in nodes)


def _spread(request: JobRequest, nodes: Sequence[Node], free: Mapping[str, int]) -> Allocation:
    """Tasks as even as their number allows, the first nodes getting more."""
    room = [_room(request, node, free) for node in nodes]
    if request.ntasks is None:
        tasks = [request.ntasks_per_node or 1 for _ in nodes]
    else:
        tasks = [0] * len(nodes)
        left = request.ntasks
        while left > 0:
            for i in range(len(nodes)):
                if left > 0 and tasks[i] < room[i]:
                    tasks[i] += 1
                    left -= 1
    cpus = [
        node.cpus if request.exclusive else min(node.cpus, max(1, count) * request.cpus_of_a_task)
        for node, count in zip(nodes, tasks, strict=True)
    ]
    return Allocation(tuple(node.name for node in nodes), tuple(tasks), tuple(cpus))
