"""How an emulated cluster is set up: nodes, partitions, timings, whose rules. Values and their checks only."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcresume.config.timetable import SLURM_VERSIONS, parse_seconds
from hpcresume.emulate.nodes import Partition
from hpcresume.errors import ConfigError

__all__ = ["ClusterSettings", "default_partitions", "parse_partition"]

MOST_NODES = 1024
_KNOWN = ("tier", "preempt", "grace", "limit")


def default_partitions(grace: float = 10.0, wanted: str = "") -> tuple[Partition, ...]:
    """`low` (the default one, preempted with grace) and `high` (takes its nodes).

    `wanted` are partitions, between commas, that a script names: like `low` where they are not these two.
    """
    low = Partition("low", tier=1, preempt="requeue", grace=grace)
    others = [name for name in wanted.split(",") if name and name not in ("low", "high")]
    return (
        low,
        Partition("high", tier=10, preempt="off"),
        *(Partition(name, tier=1, preempt="requeue", grace=grace) for name in dict.fromkeys(others)),
    )


@dataclass(frozen=True)
class ClusterSettings:
    """One cluster.

    Attributes:
        nodes: how many; they are named n0, n1, …
        cpus: processors of each.
        partitions: the first one is the default.
        kill_wait: seconds from TERM to KILL (KillWait).
        requeue_delay: seconds from the end of an attempt until the job may start again.
        node_down: seconds that a lost node stays away.
        user_signal: does a preemption send the job's own --signal (send_user_signal)?
        requeue: may jobs be requeued that do not say (JobRequeue)?
        append: are logs appended to at a restart when the job does not say (JobFileAppend)?
        mpi: the type of MPI that srun uses when it is not told (MpiDefault).
        slurm: whose rules, "22.05" or "24.11".
        name: the cluster's name.
    """

    nodes: int = 4
    cpus: int = 8
    partitions: tuple[Partition, ...] = field(default_factory=default_partitions)
    kill_wait: float = 5.0
    requeue_delay: float = 1.0
    node_down: float = 1.0
    user_signal: bool = True
    requeue: bool = True
    append: bool = False
    mpi: str = "pmix"
    slurm: str = "24.11"
    name: str = "emulated"

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST_NODES:
            raise ConfigError(f"1 to {MOST_NODES} nodes, not {self.nodes}", where="--nodes")
        if self.cpus < 1:
            raise ConfigError("a node needs a processor", where="--cpus")
        if not self.partitions:
            raise ConfigError("a cluster needs a partition", where="--partition")
        if self.slurm not in SLURM_VERSIONS:
            hint = " or ".join(SLURM_VERSIONS)
            raise ConfigError(f"unknown Slurm version {self.slurm!r}", where="--slurm", hint=hint)
        if self.mpi not in ("pmix", "pmi2", "none"):
            raise ConfigError(f"unknown type of MPI {self.mpi!r}", where="--mpi-default", hint="pmix, pmi2 or none")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return tuple(f"n{i}" for i in range(self.nodes))


def parse_partition(text: str) -> Partition:
    """`gpu`, or `gpu,tier=5,grace=30s,preempt=cancel,limit=1h`.

    Raises:
        ConfigError: no such form.
    """
    name, *words = text.split(",")
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"not a partition's name: {name!r}", where="--partition", hint="gpu,tier=5,grace=30s")
    values = dict(_pair(word) for word in words)
    for key in values:
        if key not in _KNOWN:
            raise ConfigError(f"unknown setting {key!r}", where="--partition", hint=", ".join(_KNOWN))
    return Partition(
        name,
        tier=_tier(values.get("tier", "1")),
        preempt=_choice(values.get("preempt", "requeue")),
        grace=parse_seconds(values.get("grace", "0"), "--partition"),
        limit=parse_seconds(values["limit"], "--partition") if "limit" in values else None,
    )


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"not a setting: {word!r}", where="--partition", hint="tier=5")
    return key, value


def _tier(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise ConfigError(f"not a tier: {text!r}", where="--partition", hint="tier=5")
    return int(text)


def _choice(text: str) -> str:
    if text not in ("requeue", "cancel", "off"):
        raise ConfigError(f"not a way to preempt: {text!r}", where="--partition", hint="requeue, cancel or off")
    return text
