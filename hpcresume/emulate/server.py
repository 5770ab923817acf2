"""The controller's socket: takes the stand-ins' requests and answers them. Owns connections; knows no command."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcresume.emulate import wire

__all__ = ["Connection", "Server"]

Handle = Callable[["Connection", dict[str, Any]], None]
"""Answers one message, now or later."""


class Connection:
    """One stand-in that waits for its answer."""

    def __init__(self, server: Server, link: socket.socket) -> None:
        self._server = server
        self._link = link
        self._buffer = bytearray()
        self.closed = False
        self.on_close: Callable[[], None] = lambda: None
        self.asked: dict[str, Any] | None = None

    def send(self, **message: Any) -> None:
        """Send a message; a stand-in that is gone is no matter."""
        if self.closed:
            return
        try:
            self._link.setblocking(True)
            self._link.settimeout(10)
            self._link.sendall(wire.encode(message))
            self._link.setblocking(False)
        except OSError:
            self.close()

    def answer(self, out: str = "", err: str = "", code: int = 0) -> None:
        """The whole answer of a command."""
        self.send(out=out, err=err, code=code)

    def read(self) -> list[dict[str, Any]]:
        """Messages that have come whole; closes at the end or at nonsense."""
        try:
            data = self._link.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.close()
            return []
        self._buffer += data
        found = []
        try:
            while (message := wire.decode(self._buffer)) is not None:
                found.append(message)
        except (ValueError, RecursionError):
            self.close()
        return found

    def close(self) -> None:
        """Let the stand-in go."""
        if not self.closed:
            self.closed = True
            self._server.forget(self._link)
            self._link.close()
            self.on_close()


class Server:
    """Listens on a socket in the cluster's own directory (0700): nobody else can connect."""

    def __init__(self, path: Path, handle: Handle) -> None:
        self._handle = handle
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fd, name = wire.address(str(path))
        try:
            self._listener.bind(name)
        finally:
            os.close(fd)
        self._listener.listen(512)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def serve(self, timeout: float) -> None:
        """Answer what has come, waiting `timeout` seconds at most."""
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            else:
                connection: Connection = key.data
                for message in connection.read():
                    self._handle(connection, message)

    def wait(self, timeout: float) -> None:
        """Sleep until something has come, `timeout` seconds at most."""
        self._selector.select(timeout)

    def wake(self) -> None:
        """End a `serve` that waits, from any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"x")

    def _accept(self) -> None:
        # Without a descriptor left (EMFILE) the caller waits until there is one.
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                link.setblocking(False)
                self._selector.register(link, selectors.EVENT_READ, Connection(self, link))

    def forget(self, link: socket.socket) -> None:
        """Listen to a connection no more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link)

    def hang_up(self) -> None:
        """Listen no more and let all stand-ins go."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Connection):
                key.data.on_close = lambda: None
                key.data.close()
        self._listener.close()

    def close(self) -> None:
        """Close everything."""
        self.hang_up()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
