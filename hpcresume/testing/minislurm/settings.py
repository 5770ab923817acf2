"""What a small Slurm is asked to be: how many nodes, which partitions, what a preemption does. Checked here.

Owns the values and their limits. Knows neither files nor processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcresume.errors import ConfigError

__all__ = ["OWN_KEYS", "Partition", "Settings", "default_partitions", "parse_partition", "parse_setting"]

MOST_NODES = 256
"""A node is a slurmd and a shell, about 6 MB of memory; 64 of them have been seen to start in a second."""
PREEMPT_MODES = ("OFF", "CANCEL", "REQUEUE")
"""SUSPEND needs gang scheduling, which nothing here configures."""
OWN_KEYS = frozenset(
    key.lower()
    for key in (
        "AuthInfo", "AuthType", "ClusterName", "Include", "NodeName", "PartitionName", "SlurmUser", "SlurmctldHost",
        "SlurmctldLogFile", "SlurmctldPidFile", "SlurmctldPort", "SlurmdLogFile", "SlurmdPidFile", "SlurmdPort",
        "SlurmdSpoolDir", "SlurmdUser", "StateSaveLocation", "TmpFS",
    )
)  # fmt: skip
"""Lines of slurm.conf, in small letters, on which this package itself depends."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}", re.ASCII)
_NODES = re.compile(r"ALL|n(\d+|\[\d+(-\d+)?(,\d+(-\d+)?)*\])(,n(\d+|\[\d+(-\d+)?(,\d+(-\d+)?)*\]))*", re.ASCII)
_KEY = re.compile(r"[A-Za-z]{1,64}", re.ASCII)
_PARTITION_FORM = "NAME[,tier=N][,preempt=OFF|CANCEL|REQUEUE][,grace=SECONDS][,limit=MINUTES][,nodes=n[1-2]]"


@dataclass(frozen=True)
class Partition:
    """A partition; the first one of a cluster is its default.

    Attributes:
        name: what `--partition` is given.
        tier: PriorityTier; jobs of a higher tier preempt those of a lower one.
        preempt: what becomes of a job of this partition that is preempted: OFF, CANCEL or REQUEUE.
        grace: GraceTime, seconds between the warning of a preemption and its end.
        limit: MaxTime in minutes; None means that there is none.
        nodes: which nodes belong to it.
    """

    name: str
    tier: int = 1
    preempt: str = "REQUEUE"
    grace: int = 0
    limit: int | None = None
    nodes: str = "ALL"

    def __post_init__(self) -> None:
        where = f"partition {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name!r} cannot be the name of a partition",
                where="partition",
                hint="a letter, then letters, digits, - and _, 32 in all",
            )
        if self.preempt not in PREEMPT_MODES:
            raise ConfigError(
                f"a partition cannot preempt by {self.preempt!r}", where=where, hint=" or ".join(PREEMPT_MODES)
            )
        _within(self.tier, 0, 65533, "tier", where)
        _within(self.grace, 0, 86400, "grace", where)
        if self.limit is not None:
            _within(self.limit, 1, 10**7, "limit", where)
        if not _NODES.fullmatch(self.nodes):
            raise ConfigError(f"{self.nodes!r} is no list of nodes", where=where, hint="ALL, n1,n3 or n[1-2,4]")


@dataclass(frozen=True)
class Settings:
    """The whole cluster.

    Attributes:
        nodes: how many; they are called n1, n2, …
        cpus: of each node, whatever the machine has.
        memory: of each node in MB, whatever the machine has.
        partitions: the first is the default one.
        user_signal: whether a preemption sends the signal of the job's `--signal` at once (send_user_signal).
        accounting: whether slurmdbd and a MariaDB of its own run beside it, so that sacct works.
        extra: further lines of slurm.conf, key and value; they replace ours of the same key.
    """

    nodes: int = 2
    cpus: int = 2
    memory: int = 2000
    partitions: tuple[Partition, ...] = ()
    user_signal: bool = True
    accounting: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _within(self.nodes, 1, MOST_NODES, "nodes", "nodes")
        _within(self.cpus, 1, 1024, "cpus", "cpus")
        _within(self.memory, 1, 2**30, "memory", "memory")
        if not self.partitions:
            raise ConfigError("a cluster needs a partition", where="partitions", hint="Partition('main')")
        names = [partition.name.lower() for partition in self.partitions]
        if len(set(names)) < len(names):
            raise ConfigError("two partitions have the same name", where="partitions", hint="other names")
        for key, value in self.extra.items():
            _check_line(key, value)

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names."""
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))


def default_partitions(grace: int) -> tuple[Partition, ...]:
    """One whose jobs are preempted after `grace` seconds and requeued, and one that preempts them.

    Raises:
        ConfigError: the grace is out of its limits.
    """
    return (Partition("low", grace=grace), Partition("high", tier=10, preempt="OFF"))


def parse_partition(text: str) -> Partition:
    """A partition as the command line has it: `low,tier=1,preempt=REQUEUE,grace=20,nodes=n[1,2]`.

    Raises:
        ConfigError: it is not of that form.
    """
    name, *words = re.split(r",(?![^\[]*\])", text)  # a comma inside of brackets belongs to the nodes
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and "nodes" in values:  # nodes=n1,n3
            values["nodes"] += f",{key}"
            continue
        if not equals or key not in ("tier", "preempt", "grace", "limit", "nodes") or key in values:
            raise ConfigError(f"{word!r} does not belong to a partition", where=text, hint=_PARTITION_FORM)
        values[key] = value
    numbers = {key: _number(values[key], key, text) for key in ("tier", "grace", "limit") if key in values}
    return Partition(
        name=name,
        tier=numbers.get("tier", 1),
        preempt=values.get("preempt", "REQUEUE").upper(),
        grace=numbers.get("grace", 0),
        limit=numbers.get("limit"),
        nodes=values.get("nodes", "ALL"),
    )


def parse_setting(text: str) -> tuple[str, str]:
    """A line of slurm.conf as the command line has it: `KillWait=10`.

    Raises:
        ConfigError: it is not of that form, or one of those that must stay as they are.
    """
    key, _, value = text.partition("=")
    _check_line(key.strip(), value.strip())
    return key.strip(), value.strip()


def _check_line(key: str, value: str) -> None:
    if not _KEY.fullmatch(key) or not value or not value.isprintable():
        raise ConfigError(f"{key}={value} is no line of slurm.conf", where="--set", hint="--set KillWait=10")
    if key.lower() in OWN_KEYS:
        raise ConfigError(f"{key} is decided here and cannot be set", where="--set", hint="leave it out")


def _number(text: str, key: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ConfigError(f"{key}={text} is no whole number", where=where, hint=f"{key}=20")
    return int(text)


def _within(value: int, least: int, most: int, name: str, where: str) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{name} is {value!r}", where=where, hint=f"a whole number from {least} to {most}")
