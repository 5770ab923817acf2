"""How the stand-ins talk to the controller: one JSON object each way over a Unix socket, with length before it.

Standard library only: `client_program` runs it by path, without hpcresume.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

__all__ = ["address", "connect", "decode", "encode", "receive"]

MOST = 64 << 20
"""Bytes of one message: a script, an environment and a table of a thousand jobs fit many times."""


def encode(message: dict[str, Any]) -> bytes:
    """The bytes of a message."""
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    return len(data).to_bytes(4, "big") + data


def decode(buffer: bytearray) -> dict[str, Any] | None:
    """Take the first whole message out of a buffer; None when there is none yet.

    Raises:
        ValueError: what came is no message.
    """
    if len(buffer) < 4:
        return None
    length = int.from_bytes(buffer[:4], "big")
    if length > MOST:
        raise ValueError("a message is too long")
    if len(buffer) < 4 + length:
        return None
    value = json.loads(bytes(buffer[4 : 4 + length]))
    del buffer[: 4 + length]
    if not isinstance(value, dict):
        raise ValueError("a message is no object")
    return value


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Wait for one message; None when the other side is gone."""
    buffer = bytearray()
    while (message := decode(buffer)) is None:
        # Not a byte more than this message: the next one may be there already.
        wanted = 4 - len(buffer) if len(buffer) < 4 else 4 + int.from_bytes(buffer[:4], "big") - len(buffer)
        data = connection.recv(min(wanted, 1 << 20))
        if not data:
            return None
        buffer += data
    return message


def address(path: str) -> tuple[int, str]:
    """A directory's descriptor (to be closed) and a short name for a socket in it: a path may have 107 bytes only."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return fd, f"/proc/self/fd/{fd}/{os.path.basename(path)}"


def connect(path: str) -> socket.socket:
    """A connection to a socket of any path length.

    Raises:
        OSError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd, name = address(path)
    try:
        connection.connect(name)
    except OSError:
        connection.close()
        raise
    finally:
        os.close(fd)
    return connection
