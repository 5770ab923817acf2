"""Which ranks share a machine. Pure but for asking the kernel its hostname."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

__all__ = ["node_name", "number_nodes"]


def node_name(env: Mapping[str, str]) -> str:
    """Name of the node that this process runs on.

    `HPCRESUME_NODE` comes first, so that emulated nodes on one machine count as several; then slurmd's
    own name for the node (srun(1), SLURMD_NODENAME), since hostnames need not be unique in containers.
    """
    return env.get("HPCRESUME_NODE") or env.get("SLURMD_NODENAME") or socket.gethostname()


def number_nodes(names: Sequence[bytes]) -> tuple[int, ...]:
    """Turn the names of all ranks, in rank order, into node indices numbered by first appearance."""
    index: dict[bytes, int] = {}
    return tuple(index.setdefault(name, len(index)) for name in names)
