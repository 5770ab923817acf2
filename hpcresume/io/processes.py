"""Processes of this machine, found by a mark in their environment, and signalled without hitting a stranger.

Linux's /proc only. Knows nothing of jobs or ranks. A process keeps the environment that it was exec'ed with, and
its children inherit it, so a mark set once names a whole tree, daemons and orphans included.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "SHIM",
    "MarkedProcess",
    "end_marked",
    "is_running",
    "marked_processes",
    "send_signal",
    "signal_masks",
    "start_time",
]

SHIM = Path(__file__).with_name("shim.py")
"""A program that sets the signal mask and more, then becomes another program; see there."""

_PROC = Path("/proc")


@dataclass(frozen=True)
class MarkedProcess:
    """A running process. `started` (clock ticks since boot) tells it from a later one with the same pid."""

    pid: int
    parent: int
    started: str
    environ: Mapping[str, str]


def marked_processes(name: str, value: str) -> list[MarkedProcess]:
    """Every running process whose environment has `name=value`. Zombies and other users' processes are not seen."""
    mark = f"{name}={value}".encode()
    found = (_read(int(entry), mark) for entry in os.listdir(_PROC) if entry.isdecimal())
    return [process for process in found if process is not None]


def _read(pid: int, mark: bytes) -> MarkedProcess | None:
    try:
        pairs = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        if mark not in pairs:
            return None
        stat = _stat(pid)
    except OSError:
        return None
    if stat[0] in ("Z", "X"):
        return None
    texts = (pair.decode(errors="surrogateescape").partition("=") for pair in pairs if pair)
    return MarkedProcess(pid, int(stat[1]), stat[19], {key: text for key, _, text in texts})


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state (field 3) on: the name before it may hold anything (proc(5))."""
    text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    return text[text.rindex(")") + 2 :].split()


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None when there is none."""
    try:
        return _stat(pid)[19]
    except (OSError, ValueError, IndexError):
        return None


def is_running(pid: int, started: str) -> bool:
    """Does this very process run, which started at that time? One that has ended and waits to be reaped does not."""
    try:
        stat = _stat(pid)
        return stat[0] not in ("Z", "X") and stat[19] == started
    except (OSError, ValueError, IndexError):
        return False


def send_signal(process: MarkedProcess, number: int) -> bool:
    """Signal this very process; False when it is gone (a new one with its pid is left alone)."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:  # kernels before 5.3 have no pidfd: a smaller promise, the pid is looked at just before
        fd = -1
    try:
        if start_time(process.pid) != process.started:
            return False
        if fd < 0:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def end_marked(name: str, value: str, *, within: float = 5.0) -> int:
    """KILL every process with the mark, and those they started meanwhile; return how many were met.

    Waits until none is left, `within` seconds at most. The calling process is spared.
    """
    met: set[tuple[int, str]] = set()
    until = time.monotonic() + within
    while True:
        alive = [p for p in marked_processes(name, value) if p.pid != os.getpid()]
        if not alive or time.monotonic() > until:
            return len(met)
        for process in alive:
            met.add((process.pid, process.started))
            send_signal(process, signal.SIGKILL)
        time.sleep(0.005)


def signal_masks(pid: int) -> tuple[int, int]:
    """The sets of signals that a process blocks and that it catches, as bit masks; zeros when it is gone."""
    try:
        lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return 0, 0
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values.get("SigBlk", "0"), 16), int(values.get("SigCgt", "0"), 16)
