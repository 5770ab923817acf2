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
_WORDS = re.compile(
    r"connection (?:was )?(?:reset|closed|refused|aborted|lost|timed out|failure)|(?:reset|closed) by peer|broken pipe"
    r"|no route to host|host is (?:down|unreachable)|network is (?:down|unreachable)|transport endpoint"
    r"|stale file handle|timed? ?out|heartbeat|peer (?:has )?(?:exited|failed|died|disconnected)|lost connection"
    r"|\bMPIX?_ERR|\bPMIX|\bPRTE|\bORTE|\bUCX\b|\bNCCL|\bRCCL|ncclRemoteError|gloo[/:]|ProcessGroup",
    re.IGNORECASE,
)
"""Of sockets (connect(2), recv(2)), MPI, torch's backends, and of a network filesystem whose server was that node."""


def is_echo(kind: str, message: str) -> bool:
    """Can an exception of this type, with these words, come of the end of another rank or of its node?"""
    return kind in _TYPES or _WORDS.search(message) is not None
