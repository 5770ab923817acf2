"""Maintenances that a cluster has announced: reservations with the flag MAINT, into which no job may run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hpcresume.slurm.changes import expand_nodes, partition_nodes
from hpcresume.slurm.commands import Execute, Sleep, execute, patiently
from hpcresume.slurm.job_text import parse_time

__all__ = ["Maintenance", "maintenance_in_the_way"]

TIMEOUT = 5.0
"""Seconds for one command: a submission does not wait long for what is only said."""
_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z_]*)=(\S*)")


@dataclass(frozen=True)
class Maintenance:
    """One of them; times are seconds since the epoch.

    Attributes:
        name: of the reservation.
        start: when its nodes are taken.
        end: when they are free again.
        nodes: in Slurm's compressed form.
    """

    name: str
    start: float
    end: float
    nodes: str


def maintenance_in_the_way(
    partition: str, nodes: int, seconds: float | None, now: float, *, timeout: float = TIMEOUT,
    execute: Execute = execute, sleep: Sleep = time.sleep,
) -> Maintenance | None:  # fmt: skip
    """The first maintenance into which a job would run if it started now, and which leaves too few nodes beside it.

    None also when Slurm cannot be asked. Never raises.

    Args:
        partition: where the job is to run.
        nodes: how many it wants.
        seconds: its time limit, None without one.
        now: our clock, seconds since the epoch.
        timeout: seconds for each command.
        execute: runs the commands.
        sleep: waits between tries.
    """
    answer = patiently(["scontrol", "--oneliner", "show", "reservation"], timeout, execute, sleep)
    if answer.code != 0:
        return None
    ahead = [each for each in _read(answer.out) if each.end > now and (seconds is None or each.start < now + seconds)]
    if not ahead:
        return None
    ours = {each.name for each in partition_nodes(partition, timeout=timeout, execute=execute, sleep=sleep)}
    for each in sorted(ahead, key=lambda one: one.start):
        taken = expand_nodes(each.nodes, timeout=timeout, execute=execute, sleep=sleep)
        if ours and taken is not None and len(ours - set(taken)) < nodes:
            return each
    return None


def _read(text: str) -> Iterator[Maintenance]:
    for line in text.splitlines():
        fields = dict(_FIELD.findall(line))
        start, end = parse_time(fields.get("StartTime", "")), parse_time(fields.get("EndTime", ""))
        flags = fields.get("Flags", "").split(",")
        if "MAINT" in flags and start is not None and end is not None and fields.get("Nodes", "(null)") != "(null)":
            yield Maintenance(fields.get("ReservationName", ""), start, end, fields["Nodes"])
