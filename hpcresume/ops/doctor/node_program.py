"""One node's part in `hpcresume doctor`: `python -m hpcresume.ops.doctor.node_program FOLDER NAME SECONDS`.

Writes what runs on it to FOLDER/facts-NAME.json, then answers each file ping-K by a file pong-K-NAME, until there is a
file stop. The asker measures by its own clock how long an answer took: a change seen there, and another seen back.
Imports neither torch nor MPI: which versions there are is read from their metadata.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from hpcresume.comm.nodes import node_name

__all__ = ["PACKAGES", "POLL", "facts", "main", "put"]

PACKAGES = ("hpcresume", "numpy", "torch", "mpi4py", "h5py", "xxhash", "msgspec")
"""Those whose versions must be the same on all nodes of a job."""
LATE = 5.0
"""Seconds for the folder to become visible; and the others answer meanwhile, before srun ends all with this one."""
POLL = 0.003
"""Seconds between two looks for the next file."""


def facts() -> dict[str, Any]:
    """What runs here. Never raises."""
    return {
        "host": node_name(os.environ),
        "python": platform.python_version(),
        "executable": sys.executable,
        "versions": {name: _version(name) for name in PACKAGES},
        "kernel": platform.release(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "hpcresume":
            return None
        from hpcresume.version import __version__

        return __version__


def put(path: Path, value: dict[str, Any]) -> None:
    """A file that is there whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(value))
    scratch.rename(path)


def main(folder: Path, name: str, seconds: float) -> int:
    """Answer until told to stop, or for so many seconds. 1: there is no such folder here."""
    until = time.monotonic() + seconds
    late = time.monotonic() + LATE
    while not folder.is_dir():
        if time.monotonic() > late:
            sys.stderr.write(f"{folder} is not seen on {node_name(os.environ)}\n")
            return 1
        time.sleep(0.1)
    put(folder / f"facts-{name}.json", facts())
    number = 0
    while time.monotonic() < until and not (folder / "stop").exists():
        try:
            text = (folder / f"ping-{number}").read_text()
        except FileNotFoundError:
            time.sleep(POLL)
            continue
        put(folder / f"pong-{number}-{name}", {"heard": text, "time": time.time()})
        number += 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), os.environ.get("SLURM_NODEID", sys.argv[2]), float(sys.argv[3])))
