"""Which nodes of a job have gone silent, found out by knocking at their slurmd: Slurm itself notices minutes later.

MPI notices a lost node within a second and ends the ranks; SlurmdTimeout is 300 s by default (slurm.conf(5)). Until
then Slurm calls the node well, and the death of the ranks would be called a crash.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hpcresume.slurm.commands import Execute, execute, patiently, show_nodes

__all__ = ["Knock", "can_knock", "knock", "silent_nodes"]

MOST_NODES = 1024
"""Of larger jobs none is knocked at: the answer would take too long."""
AT_ONCE = 64
WITNESSES = 3
"""How many others are tried before it is said that nodes do not let each other in."""
PATIENCE = 3.0
"""Seconds for one knock. A node without power does not even refuse it."""
DEFAULT_PORT = 6818
"""SlurmdPort (slurm.conf(5))."""

_ADDRESS = re.compile(r"\sNodeAddr=([A-Za-z0-9_.:-]{1,255})(?=\s|$)")
_PORT = re.compile(r"\sPort=([0-9]{1,5})(?=\s|$)")
_SLURMD_PORT = re.compile(r"^SlurmdPort\s*=\s*([0-9]{1,5})\s*$", re.MULTILINE)

Knock = Callable[[str, int], bool]
"""Does something at this address answer on this port?"""


def knock(address: str, port: int) -> bool:
    """Open a connection and close it. An address that cannot be looked up says nothing of the node, so it counts as
    an answer.
    """
    try:
        with socket.create_connection((address, port), timeout=PATIENCE):
            return True
    except socket.gaierror:
        return True
    except (OSError, OverflowError, UnicodeError):
        return False


def silent_nodes(
    node_list: str,
    own: str | None,
    *,
    reached: bool = False,
    execute: Execute = execute,
    knock: Knock = knock,
    timeout: float = 10.0,
) -> tuple[str, ...]:
    """Which nodes of a list (`n[1-4]`) do not answer, though this one and another do. Never raises.

    More than half of them are never called lost by this: then it is rather we who are cut off, and Slurm will know.

    Args:
        node_list: the job's nodes in Slurm's compressed form.
        own: the node that we are on. Where it does not answer either, nothing is concluded: slurmds are then not to
            be reached by us, or all of them are being restarted.
        reached: another node answered before (`can_knock`). Else one has to answer now: behind a firewall between the
            nodes all others are silent for ever.
        execute: runs the commands.
        knock: knocks.
        timeout: seconds for a command.
    """
    places = _asked(node_list, own, execute, timeout)
    if own is None or own not in places or not knock(*places[own]):
        return ()
    others = sorted(set(places) - {own})
    with ThreadPoolExecutor(min(AT_ONCE, len(others))) as pool:
        heard = list(pool.map(lambda node: knock(*places[node]), others))
    silent = tuple(node for node, answered in zip(others, heard, strict=True) if not answered)
    return silent if (reached or any(heard)) and 2 * len(silent) <= len(places) else ()


def can_knock(
    node_list: str, own: str | None, *, execute: Execute = execute, knock: Knock = knock, timeout: float = 10.0
) -> bool:
    """Does another node of the list answer us, so that its silence would mean something later? Never raises."""
    places = _asked(node_list, own, execute, timeout)
    return any(knock(*places[node]) for node in sorted(set(places) - {own})[:WITNESSES])


def _asked(node_list: str, own: str | None, execute: Execute, timeout: float) -> dict[str, tuple[str, int]]:
    """Address and port of each node of a list with ours in it; empty where nothing could be learned from them."""
    if not own:
        return {}
    places = _places(show_nodes(node_list, timeout=timeout, execute=execute))
    if own not in places or not 1 < len(places) <= MOST_NODES:
        return {}
    usual = DEFAULT_PORT
    if any(port is None for _, port in places.values()):
        usual = _usual_port(execute, timeout)
    return {node: (address, port or usual) for node, (address, port) in places.items()}


def _places(lines: dict[str, str]) -> dict[str, tuple[str, int | None]]:
    found: dict[str, tuple[str, int | None]] = {}
    for name, line in lines.items():
        address, port = _ADDRESS.search(line), _PORT.search(line)
        if address is not None:
            found[name] = address[1], int(port[1]) if port is not None else None
    return found


def _usual_port(execute: Execute, timeout: float) -> int:
    answer = patiently(["scontrol", "show", "config"], timeout, execute)
    match = _SLURMD_PORT.search(answer.out) if answer.code == 0 else None
    return int(match[1]) if match is not None else DEFAULT_PORT
