"""A process tree with mounts of its own. It ends with the test process, even by kill -9, and the kernel then takes away
every daemon, mount and loop device in it: there is nothing to clean up at the next start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from hpcresume.io.processes import SHIM
from hpcresume.testing.minislurm.daemons import relatives

__all__ = ["Room", "program_of", "tree_of"]

_FIRST_PROCESS = "set -e\nmount -t proc proc /proc\necho ready\nsleep infinity &\nwhile :; do wait || :; done\n"
_UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]


class Room:
    """The namespaces, held by a shell that does nothing but wait. Needs root."""

    def __init__(self) -> None:
        # Not before the test's own thread ends: the kernel looks at the thread that starts it (prctl(2)).
        keeper = [sys.executable, "-S", "-I", str(SHIM), "--end-with-parent", "KILL", "--"]
        self._process = subprocess.Popen(
            [*keeper, *_UNSHARE, "sh", "-c", _FIRST_PROCESS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the room could not be made"
        self.first = next(each.pid for each in relatives() if each.parent == self._process.pid)

    def __enter__(self) -> Room:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        until = time.monotonic() + 10
        while Path(f"/proc/{self.first}/root").exists() and time.monotonic() < until:
            time.sleep(0.01)

    def leading(self) -> list[str]:
        """The beginning of a command that is to run in it."""
        return ["nsenter", f"--target={self.first}", "--mount", "--pid", "--"]

    def path(self, path: Path) -> Path:
        """A path of the room, as seen from outside."""
        return Path(f"/proc/{self.first}/root") / path.relative_to("/")

    def run(self, *words: str, timeout: float = 60, check: bool = True) -> str:
        """Run a command in it and return what it printed."""
        done = subprocess.run(
            [*self.leading(), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr or done.stdout}"
        return done.stdout


def tree_of(root: int) -> set[int]:
    """The processes that descend from one, itself included."""
    children: dict[int, list[int]] = {}
    for each in relatives():
        children.setdefault(each.parent, []).append(each.pid)
    found, new = set(), [root]
    while new:
        pid = new.pop()
        found.add(pid)
        new += children.get(pid, [])
    return found


def program_of(pid: int) -> Sequence[str]:
    """The words that a process was started with; none when it is gone or a zombie."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return ()
