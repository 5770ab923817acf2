"""A GlusterFS of four bricks on this machine, in a room of its own; and its clients in the nodes of a small Slurm.

Its glusterd listens on an address of its own in 127.0.0.0/8 and keeps everything in one folder, so that it meets
neither the machine's own GlusterFS nor another test's.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.storage.room import Room, program_of, tree_of
from tests.support.lacking import cannot

__all__ = ["BRICKS", "Gluster", "skip_without_gluster", "until"]

BRICKS = 4
VOLUME = "v1"


def skip_without_gluster() -> None:
    """Skip the test where GlusterFS cannot run."""
    if os.geteuid() != 0:
        reason = "GlusterFS's daemons and FUSE mounts in nodes need root"
    elif not Path("/dev/fuse").exists():
        reason = "this kernel has no FUSE (/dev/fuse)"
    elif missing := [name for name in ("glusterd", "gluster", "glusterfs", "nsenter") if shutil.which(name) is None]:
        reason = f"no GlusterFS here: {', '.join(missing)} missing; `make test-storage` installs it where it may"
    else:
        return
    cannot(reason)


def until(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Wait until `condition()` is true."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"no {what} after {timeout:g} s"
        time.sleep(0.05)


class Gluster:
    """The volume `v1`, distributed over four bricks without replicas: a file lies on one brick, and goes with it."""

    def __init__(self, base: Path, room: Room) -> None:
        self.base, self.room = base, room
        self.address = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self.mount_point = base / "mnt"
        for name in ("daemon", "run", "log", "mnt", *(f"b{n}" for n in range(1, BRICKS + 1))):
            (base / name).mkdir(parents=True)
        for folder in ("/run/gluster", "/var/log/glusterfs", "/var/lib/glusterd"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            room.run("mount", "-t", "tmpfs", "tmpfs", folder)
        self._start_daemon()
        bricks = [f"{self.address}:{base / f'b{n}'}" for n in range(1, BRICKS + 1)]
        self.command("volume", "create", VOLUME, *bricks, "force")
        self.command("volume", "start", VOLUME)

    def _start_daemon(self) -> None:
        options = {
            "working-directory": self.base / "daemon",
            "run-directory": self.base / "run",
            "glusterd-sockfile": self.base / "run" / "gd.sock",
            "transport.socket.bind-address": self.address,
        }
        words = [f"--xlator-option=management.{name}={value}" for name, value in options.items()]
        log = self.base / "log" / "glusterd.log"
        self.room.run("glusterd", *words, f"--pid-file={self.base / 'run' / 'glusterd.pid'}", f"--log-file={log}")
        until(lambda: self.command("peer", "status", check=False), "answer of glusterd")

    def command(self, *words: str, check: bool = True) -> str:
        """Ask glusterd."""
        options = [f"--glusterd-sock={self.base / 'run' / 'gd.sock'}", f"--log-file={self.base / 'log' / 'cli.log'}"]
        return self.room.run("gluster", "--mode=script", *options, *words, check=check)

    # ---- bricks

    def brick_process(self, number: int) -> int | None:
        """The pid of a brick, as seen from here."""
        path = str(self.base / f"b{number}")
        for pid in tree_of(self.room.first):
            words = program_of(pid)
            if "--brick-name" in words and words[list(words).index("--brick-name") + 1] == path:
                return pid
        return None

    def brick_of(self, path: Path) -> int:
        """Which brick has this file of the volume; `path` is below the mount point."""
        relative = path.relative_to(self.mount_point)
        found = [n for n in range(1, BRICKS + 1) if _has_content(self.base / f"b{n}" / relative)]
        assert len(found) == 1, f"{relative} lies on bricks {found}"
        return found[0]

    def kill_brick(self, number: int) -> None:
        """kill -9 of its process: the files on it are away, those on the others are not."""
        pid = self.brick_process(number)
        assert pid is not None, f"brick {number} does not run"
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.brick_process(number) is None, f"end of brick {number}", 10)

    def heal(self) -> None:
        """Start the bricks that do not run, and wait until glusterd has them all."""

        def whole() -> bool:
            self.command("volume", "start", VOLUME, "force", check=False)
            return all(self.brick_process(n) is not None for n in range(1, BRICKS + 1))

        until(whole, "bricks")

    # ---- clients

    def mount_on(self, cluster: Cluster, node: str) -> None:
        """Mount the volume on one node: a client of its own, with its own caches."""
        log = self.base / "log" / f"{node}.log"
        words = [f"--volfile-server={self.address}", f"--volfile-id={VOLUME}", f"--log-file={log}"]
        cluster.mini.on_node(node, "glusterfs", *words, str(self.mount_point))
        until(lambda: os.path.ismount(self.on(cluster, node)), f"mount on {node}", 30)

    def on(self, cluster: Cluster, node: str, path: Path | None = None) -> Path:
        """A path of the volume as this node sees it, for a process outside of the node."""
        first = _first_process(cluster, node)
        return Path(f"/proc/{first}/root") / (path or self.mount_point).relative_to("/")

    def client(self, cluster: Cluster, node: str) -> int:
        """The pid of a node's FUSE client."""
        for pid in tree_of(_first_process(cluster, node)):
            words = program_of(pid)
            if words and words[0].endswith("glusterfs") and words[-1] == str(self.mount_point):
                return pid
        raise AssertionError(f"{node} has no client")

    def is_whole(self, cluster: Cluster) -> bool:
        """Do the clients of all nodes reach all bricks? A directory can be renamed only then."""
        return all(_can_rename(self.on(cluster, node), node) for node in cluster.mini.names)


def _first_process(cluster: Cluster, node: str) -> int:
    """A node's process 1: the target of the command that leads into it."""
    leading = cluster.mini._running().nodes.lead_into(node)
    return int(leading[1].partition("=")[2])


def _has_content(path: Path) -> bool:
    """A brick may also have an empty entry that only says where the file lies (mode 1000)."""
    try:
        return path.stat().st_mode & 0o7777 != 0o1000
    except OSError:
        return False


def _can_rename(mount: Path, node: str) -> bool:
    name = f".whole-{node}-{os.getpid()}-{time.monotonic_ns()}"
    try:
        for n in range(8):  # their names lead to different bricks
            (mount / f"{name}-{n}").mkdir()
            (mount / f"{name}-{n}").rename(mount / f"{name}-{n}.moved")
            (mount / f"{name}-{n}.moved").rmdir()
    except OSError:
        return False
    return True
