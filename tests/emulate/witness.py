"""Writes down which signals reach it: `python witness.py NAME FILE`. A rank adds its number to its name."""

from __future__ import annotations

import os
import signal
import sys
import time

SIGNALS = ("CONT", "USR1", "USR2", "TERM", "INT", "HUP")


def main(name: str, path: str) -> None:
    """Live until a signal that cannot be caught, or for two minutes."""
    rank = next((os.environ[key] for key in ("PMIX_RANK", "SLURM_PROCID") if key in os.environ), "")
    name += rank if name == "rank" else ""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def heard(number: int, frame: object) -> None:
        os.write(fd, f"{name} {signal.Signals(number).name.removeprefix('SIG')}\n".encode())

    for each in SIGNALS:
        signal.signal(getattr(signal, f"SIG{each}"), heard)
    os.write(fd, f"{name} START\n".encode())
    end = time.monotonic() + 120
    while time.monotonic() < end and not os.path.exists(path + ".leave"):
        time.sleep(0.02)


main(*sys.argv[1:])
