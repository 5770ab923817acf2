"""Writes down which signals reach it: `python -m hpcresume.ops.doctor.witness_program FOLDER NAME`.

A rank adds its number to its name and starts a child, as a DataLoader worker that was spawned would be one. Each has a
file of its own, FOLDER/heard-NAME: appending to one file from several nodes is not safe on NFS.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from hpcresume.comm.nodes import node_name

__all__ = ["SECONDS", "SIGNALS", "Witness", "main", "rank_number"]

SIGNALS = ("CONT", "USR1", "USR2", "TERM", "INT", "HUP")
SECONDS = 300.0
"""A witness leaves then, whatever happens."""
POLL = 0.05


class Witness:
    """The file of one process, and the handlers that write to it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._fd = os.open(folder / f"heard-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for each in SIGNALS:
            signal.signal(getattr(signal, f"SIG{each}"), self._heard)
        self.note(f"START {node_name(os.environ)}")

    def note(self, words: str) -> None:
        """One line with the time."""
        os.write(self._fd, f"{time.time():.4f} {words}\n".encode())

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        self.note(signal.Signals(number).name.removeprefix("SIG"))


def rank_number() -> str:
    """As the launcher tells it: the inner one first, since mpiexec's ranks see the variables of Slurm's step too."""
    names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
    return next((os.environ[name] for name in names if os.environ.get(name, "").isdecimal()), "0")


def main(folder: Path, name: str) -> int:
    """Listen until there is a file leave-PHASE, PHASE being what stands before the first dash of the name."""
    phase, _, role = name.partition("-")
    child = None
    if role == "rank":
        name += rank_number()
        words = [sys.executable, "-m", "hpcresume.ops.doctor.witness_program", str(folder), f"{name}.child"]
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    Witness(folder, name)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and not (folder / f"leave-{phase}").exists():
        time.sleep(POLL)
    if child is not None:
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2]))
