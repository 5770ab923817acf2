"""Who starts next, who must make room, and why the others wait. Pure: reads values, changes nothing.

Jobs are tried by tier of their partition, then priority, then number. A job that does not fit holds back the later
ones of its partition, so nobody is overtaken for ever; jobs of a lower tier do not get the nodes it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hpcresume.emulate.jobs import Job, Phase
from hpcresume.emulate.nodes import Allocation, Node, choose, could_ever

__all__ = ["Agenda", "plan"]


@dataclass
class Agenda:
    """What the controller shall do now: starts, victims of preemptions, and reasons for those that wait."""

    starts: list[tuple[Job, Allocation]] = field(default_factory=list)
    victims: list[Job] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)


def plan(ready: Sequence[Job], running: Sequence[Job], nodes: Sequence[Node], now: float) -> Agenda:
    """Decide for the jobs that may start now.

    Args:
        ready: pending jobs that wait for nodes only.
        running: jobs that have nodes.
        nodes: the whole cluster, as used now.
        now: unix seconds.
    """
    agenda = Agenda()
    up = [node for node in nodes if node.up(now)]
    free = {node.name: node.free for node in up}
    blocked: set[str] = set()
    kept: dict[str, int] = {}
    for job in sorted(ready, key=lambda j: (-j.partition.tier, -j.priority, j.number)):
        if job.partition.name in blocked:
            agenda.reasons[job.number] = "Priority"
            continue
        usable = [
            n for n in up if kept.get(n.name, job.partition.tier) <= job.partition.tier and n.name not in job.exclude
        ]
        allocation = choose(job.request, usable, job.partition, free)
        if allocation is not None:
            agenda.starts.append((job, allocation))
            for name, cpus in zip(allocation.nodes, allocation.cpus, strict=True):
                free[name] -= cpus
            continue
        agenda.reasons[job.number] = _reason(job, nodes, up)
        if agenda.reasons[job.number] == "PartitionConfig":
            continue  # it never starts here, so nobody waits behind it
        blocked.add(job.partition.name)
        for name in _make_room(job, usable, running, free, agenda):
            kept[name] = max(kept.get(name, 0), job.partition.tier)
    return agenda


def _reason(job: Job, nodes: Sequence[Node], up: Sequence[Node]) -> str:
    if not could_ever(job.request, nodes, job.partition):
        return "PartitionConfig"
    return "Resources" if could_ever(job.request, up, job.partition) else "ReqNodeNotAvail"


def _make_room(
    job: Job, usable: Sequence[Node], running: Sequence[Job], free: dict[str, int], agenda: Agenda
) -> tuple[str, ...]:
    """Find the fewest victims, the youngest of the lowest tier first; give the nodes that the job waits for."""
    lower = [
        other for other in running if other.partition.tier < job.partition.tier and other.partition.preempt != "off"
    ]
    lower.sort(key=lambda other: (other.partition.tier, -(other.start or 0.0)))
    room = dict(free)
    victims: list[Job] = []
    for other in lower:
        _give_back(other, room)
        victims.append(other)
        if choose(job.request, usable, job.partition, room) is not None:
            break
    else:
        return ()
    for other in list(victims[:-1]):
        without = dict(free)
        for each in victims:
            if each is not other:
                _give_back(each, without)
        if choose(job.request, usable, job.partition, without) is not None:
            victims.remove(other)
            room = without
    agenda.victims += [v for v in victims if v.phase is Phase.RUNNING and v not in agenda.victims]
    found = choose(job.request, usable, job.partition, room)
    return found.nodes if found is not None else ()


def _give_back(job: Job, room: dict[str, int]) -> None:
    assert job.allocation is not None
    for name, cpus in zip(job.allocation.nodes, job.allocation.cpus, strict=True):
        if name in room:
            room[name] += cpus
