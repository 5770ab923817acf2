"""How a cluster is at this moment: its nodes as Slurm sees them, and which daemons are alive."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

__all__ = ["NodeStatus", "Status", "is_up", "parse_nodes", "registered"]


@dataclass(frozen=True)
class NodeStatus:
    """One node.

    Attributes:
        name: n1, n2, …
        state: in sinfo's words, `idle`, `allocated`, `down*`; "unknown" when the controller does not answer.
        powered: whether its process tree exists.
        slurmd: the pid of its slurmd, or None.
    """

    name: str
    state: str
    powered: bool
    slurmd: int | None


@dataclass(frozen=True)
class Status:
    """The whole cluster. `daemons` gives the pid of each, or None for one that is dead."""

    directory: str
    version: str
    nodes: tuple[NodeStatus, ...]
    daemons: dict[str, int | None]

    @property
    def healthy(self) -> bool:
        """Every daemon is alive, and every node is up and answers."""
        alive = all(pid is not None for pid in self.daemons.values())
        return alive and all(node.slurmd is not None and is_up(node.state) for node in self.nodes)


def is_up(state: str) -> bool:
    """Whether a node of this state takes jobs or runs some. A flag such as * (does not answer) says no."""
    return state in ("idle", "mixed", "allocated", "completing")


def parse_nodes(text: str) -> dict[str, str]:
    """Node → state from `sinfo --noheader --Node --format="%N %T"`; a node is there once for each partition."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: pair[1].lower() for pair in pairs if len(pair) == 2}


def registered(text: str) -> int | None:
    """When a node's slurmd started, as it told the controller: seconds since 1970, from `scontrol show node`."""
    found = re.search(r"\bSlurmdStartTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\b", text)
    return None if found is None else int(time.mktime(time.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S")))
