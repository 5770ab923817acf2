"""A node: a slurmd with a hostname, a process tree, mounts and a /dev/shm of its own (unshare(1)).

Its first process is a shell that does nothing but wait. KILL to that one is a loss of power: the kernel ends the whole
tree. KILL to slurmd alone leaves the jobs of the node running, unseen.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence

from hpcresume.testing.minislurm.daemons import Daemons, relatives, send
from hpcresume.testing.minislurm.places import Places

__all__ = ["Nodes", "unshare"]

_FIRST_PROCESS = """\
set -eu
node=$1 configuration=$2 hosts=$3
hostname "$node"
mount -t proc proc /proc
mount --bind "$hosts" /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
begin() {
    # A shell lets what it starts in the background ignore INT and QUIT, and jobs would inherit that.
    env --default-signal=INT,QUIT setpriv --ambient-caps=-all --inh-caps=-all \\
        slurmd -D -N "$node" -f "$configuration" &
}
trap begin USR1
begin
sleep infinity &
while :; do wait || :; done
"""


def unshare() -> list[str]:
    """The command that gives what follows it namespaces of its own; a plain user needs one of users too."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    spaces = ["--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "private"]
    return ["unshare", *user, *spaces]


class Nodes:
    """The nodes of one cluster. `enter` gives the command that leads into another root, or nothing."""

    def __init__(self, places: Places, daemons: Daemons, enter: Callable[[], list[str]]) -> None:
        self._places = places
        self._daemons = daemons
        self._enter = enter

    def start(self, node: str) -> None:
        """Power a node on with an empty spool and TmpFS, as a diskless one; or start its slurmd again.

        Empty: a slurmstepd that was killed leaves its PMIx socket and directory there, and the same step of the
        requeued job could not start on this node ("Address already in use", 22.05).
        """
        first = self.first_process(node)
        if first is not None:
            if self.slurmd(node) is None:
                send(first, signal.SIGUSR1)
            return
        for place, mode in ((self._places.spool(node), 0o755), (self._places.temporary(node), 0o1777)):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            place.chmod(mode)
        words = ["sh", "-c", _FIRST_PROCESS, "sh", node, str(self._places.configuration), str(self._places.hosts)]
        self._daemons.start(node, [*self._enter(), *unshare(), *words], {})

    def kill(self, node: str, *, within: float = 10.0) -> None:
        """Power a node off: everything on it is gone when this returns."""
        send(self.first_process(node), signal.SIGKILL)
        until = time.monotonic() + within
        while self._daemons.pid(node) is not None and time.monotonic() < until:
            time.sleep(0.002)
        self._daemons.end(node)

    def kill_slurmd(self, node: str) -> None:
        """End a node's slurmd alone; what runs on the node goes on."""
        send(self.slurmd(node), signal.SIGKILL)

    def lead_into(self, node: str) -> list[str]:
        """The beginning of a command that is to run on a node, with its mounts and processes; empty when it is off.

        It runs as this user, outside of any job and of what Slurm accounts for.
        """
        first = self.first_process(node)
        if first is None:
            return []
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={first}", *user, "--uts", "--ipc", "--pid", "--mount", "--"]

    def first_process(self, node: str) -> int | None:
        """The pid of a node's process 1, as seen from here; None when the node is off."""
        return self.look((node,))[node][0]

    def slurmd(self, node: str) -> int | None:
        """The pid of a node's slurmd; None when there is none."""
        return self.look((node,))[node][1]

    def look(self, nodes: Sequence[str]) -> dict[str, tuple[int | None, int | None]]:
        """The pids of process 1 and of slurmd of each node, from one look at the machine's processes."""
        found = {(each.parent, each.program): each.pid for each in relatives()}
        seen: dict[str, tuple[int | None, int | None]] = {}
        for node in nodes:
            outer = self._daemons.pid(node)
            first = None if outer is None else found.get((outer, "sh"))
            seen[node] = first, None if first is None else found.get((first, "slurmd"))
        return seen
