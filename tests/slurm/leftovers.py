"""What is left of a cluster on this machine, found by really looking: processes, mounts, sockets, files."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["leftovers", "wait_until_nothing_is_left"]


def leftovers(directory: Path) -> list[str]:
    """Everything that still has to do with a cluster's directory."""
    name = str(directory)
    found = [f"path {directory}"] if directory.exists() else []
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            found += _of_process(Path("/proc") / entry, name)
    unix = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    return found + [f"socket {line.split()[-1]}" for line in unix if f"{name}/" in line]


def _of_process(process: Path, name: str) -> list[str]:
    found = []
    for file in ("cmdline", "environ", "mountinfo"):
        with contextlib.suppress(OSError):
            if f"{name}/" in (process / file).read_bytes().decode(errors="replace"):
                found.append(f"process {process.name} ({file})")
    for link in ("cwd", "root", "exe"):
        with contextlib.suppress(OSError):
            if (os.readlink(process / link) + "/").startswith(f"{name}/"):
                found.append(f"process {process.name} ({link})")
    return found


def wait_until_nothing_is_left(directory: Path, seconds: float) -> None:
    """Wait for an end that comes by itself."""
    until = time.monotonic() + seconds
    while (left := leftovers(directory)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == [], left
