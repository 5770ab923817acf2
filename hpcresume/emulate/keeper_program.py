"""Ends what an emulated cluster leaves when its owner is killed: `python -S -I keeper_program.py FD MARK DIRECTORY…`.

Waits until the owner closes the pipe FD, by ending whichever way. Then kills every process whose environment has
MARK, and removes the directories. Standard library only, run by path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

__all__ = ["end_marked", "main"]

PATIENCE = 5.0


def main(words: list[str]) -> None:
    """Wait, then clean."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    fd, mark = int(words[0]), os.fsencode(words[1])
    while os.read(fd, 64):
        pass
    end_marked(mark)
    for directory in words[2:]:
        shutil.rmtree(directory, ignore_errors=True)


def end_marked(mark: bytes) -> None:
    """KILL every process whose environment has the mark."""
    until = time.monotonic() + PATIENCE
    while (found := _marked(mark)) and time.monotonic() < until:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _marked(mark: bytes) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if mark not in file.read():
                    continue
            with open(f"/proc/{entry}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    continue
        except OSError:
            continue
        found.append(int(entry))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
