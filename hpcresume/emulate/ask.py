"""Asks the emulated cluster around us for a deed: the client side of `deeds`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hpcresume.emulate import wire
from hpcresume.emulate.variables import SOCKET
from hpcresume.errors import SlurmError

__all__ = ["ask"]


def ask(words: Sequence[str]) -> int:
    """Have it done; return 0.

    Raises:
        SlurmError: there is no cluster around us, or it refuses.
    """
    path = os.environ.get(SOCKET)
    if not path:
        raise SlurmError("this is no emulated cluster", hint="hpcresume emulate shell")
    try:
        connection = wire.connect(path)
    except OSError as error:
        raise SlurmError("the emulated cluster has gone", where=path) from error
    with connection:
        connection.sendall(wire.encode({"command": "deed", "words": list(words)}))
        answer = wire.receive(connection)
    if answer is None or answer.get("code"):
        raise SlurmError(str((answer or {}).get("err", "no answer")).strip() or "no answer", where=" ".join(words))
    return 0
