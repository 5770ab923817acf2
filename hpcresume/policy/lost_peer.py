"""Whether an exception is the echo of somebody else's end: what a rank raises when a peer, or its node, is gone. Pure.

A rank that waits for others in a collective dies of their death, and what it then raises says nothing of the program.
What a program raises for reasons of its own is a crash, whatever else goes wrong on the cluster at that time.
"""

from __future__ import annotations

import re

__all__ = ["is_echo"]

_TYPES = frozenset(
    {
        "PeerFailureError", "RanksMissingError",  # ours
        "ConnectionError", "ConnectionResetError", "ConnectionAbortedError", "ConnectionRefusedError",
        "BrokenPipeError", "EOFError", "TimeoutError",
        "DistBackendError", "DistNetworkError", "DistStoreError", "DistError",  # torch.distributed
        "RendezvousConnectionError", "RendezvousTimeoutError", "RendezvousClosedError",
    }
)  # fmt: skip
_MAY_BE = frozenset(
    {"Exception", "OSError", "InterruptedError", "URLError", "SSLError", "gaierror", "HorovodInternalError"}
)
"""What is an echo by its words only (`Exception` is mpi4py's), as is each RuntimeError, jax's XlaRuntimeError say.
Others come of the program, whatever their words hold: a KeyError may name 'NCCL_DEBUG', a FileNotFoundError gloo/.
"""
_WORDS = re.compile(
    r"connection (?:was )?(?:reset|closed|refused|aborted|lost|timed out|failure)|(?:reset|closed) by peer|broken pipe"
    r"|no route to host|host is (?:down|unreachable)|network is (?:down|unreachable)|transport endpoint"
    r"|stale file handle|input/output error|remote i/o error|timed out"
    r"|timeout (?:waiting|expired|exceeded|reached|after|while|caused|error)"
    r"|(?:socket|operation|store|collective|wait|send|recv|connect\w*|barrier|application) timeout|heartbeat"
    r"|peer (?:has )?(?:exited|failed|died|disconnected)|lost connection"
    r"|\bMPIX?_ERR|\bPMIX|\bPRTE|\bORTE|\bUCX\b|\b[NR]CCL\b|\bnccl\w*Error"
    r"|gloo/\S*\.(?:cc|h):\d|\bGloo connect|ProcessGroup",
    re.IGNORECASE,
)
"""Of sockets (connect(2), recv(2)), MPI, torch's backends, and of a network filesystem whose server was that node."""


def is_echo(kind: str, message: str) -> bool:
    """Can an exception of this type, with these words, come of the end of another rank or of its node?"""
    may_be = kind in _MAY_BE or kind.endswith("RuntimeError")
    return kind in _TYPES or (may_be and _WORDS.search(message) is not None)
