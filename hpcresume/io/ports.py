"""A TCP port that nobody listens on, for processes that tell each other its number beforehand."""

from __future__ import annotations

import socket

from hpcresume.errors import ConfigError

__all__ = ["FIRST_PORT", "PORTS", "free_port", "is_free"]

FIRST_PORT, PORTS = 15000, 16000
"""The port is one of so many from the first: above those of services, below those that the kernel gives to outgoing
connections (ip(7), ip_local_port_range: 32768 to 60999)."""
TRIES = 200
STRIDE = 17
"""From one try to the next; prime, so that a start that finds its first port taken does not follow its neighbour's."""


def free_port(wish: int, *, where: str) -> int:
    """A free port, found from a number on that differs between starts, so that two of them hardly ever meet.

    Raises:
        ConfigError: none of those tried is free; `where` says for whom.
    """
    for step in range(TRIES):
        port = FIRST_PORT + (wish + step * STRIDE) % PORTS
        if is_free(port):
            return port
    raise ConfigError(f"none of {TRIES} ports is free for the ranks to meet", where=where)


def is_free(port: int) -> bool:
    """Can it be listened on here, on every address?"""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except OSError:
        return False
    return True
