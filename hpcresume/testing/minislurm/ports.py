"""Neighbouring TCP ports that nobody uses, kept from other clusters until the daemons have them.

A port is kept by a socket that is bound and does not listen: a daemon that asks for SO_REUSEADDR, as Slurm's do, may
bind it all the same (socket(7)), and a second cluster that looks for ports may not.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator

from hpcresume.errors import ClusterError

__all__ = ["free_ports", "taken_ports"]

FIRST, LAST = 10000, 30000
"""Below the ports that Linux gives to outgoing connections (ip_local_port_range, 32768 by default)."""
TRIES = 200


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[int]:
    """The first of `count` neighbouring ports, kept for the block.

    Raises:
        ClusterError: none were found.
    """
    starts = range(FIRST, LAST - count, count)
    for first in secrets.SystemRandom().sample(starts, min(TRIES, len(starts))):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(_kept(port))
            except OSError:
                continue
            yield first
            return
    raise ClusterError(
        f"no {count} neighbouring free ports on 127.0.0.1",
        where=f"ports {FIRST} to {LAST}",
        hint="fewer nodes, or end what uses the ports (ss -ltn)",
    )


@contextlib.contextmanager
def _kept(port: int) -> Iterator[None]:
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", port))  # refused where anybody has it, listening or not
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield


def taken_ports(ports: range) -> list[int]:
    """Those of the ports on which something listens now."""
    taken = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(port)
    return taken
