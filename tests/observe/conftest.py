"""Runs written by hand, in the format of the ledger."""

import json
import struct
from pathlib import Path

import pytest

from hpcresume.io.paths import RunPaths


class HandWritten:
    """A run directory in which a test writes what sessions and supervisors would have."""

    def __init__(self, root: Path) -> None:
        self.run = RunPaths(root)
        self.run.attempts.mkdir(parents=True)
        self.clock = 1000.0

    def line(self, path: Path, **fields) -> None:
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(fields) + "\n")

    def event(self, attempt: int, event: str, **fields) -> None:
        self.clock += 1
        self.line(self.run.attempt(attempt).ledger, t=self.clock, mono=0.0, event=event, **fields)

    def supervisor(self, attempt: int, event: str, **fields) -> None:
        self.clock += 1
        self.line(self.run.attempt(attempt).supervisor, t=self.clock, mono=0.0, event=event, **fields)

    def start(self, attempt: int, generation: str | None, skipped=()) -> None:
        paths = self.run.attempt(attempt)
        paths.root.mkdir(exist_ok=True)
        paths.start.write_text(json.dumps({"generation": generation, "skipped": list(skipped)}))

    def steps(self, attempt: int, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.clock += 0.1
            values = {"loss": attempt * 1000.0 + step}
            self.line(self.run.attempt(attempt).metrics, step=step, t=self.clock, values=values)
        self.progress(attempt, last)

    def progress(self, attempt: int, step: int) -> None:
        self.run.attempt(attempt).progress.write_bytes(struct.pack("<q", step))

    def saved(self, attempt: int, step: int, seconds: float = 0.5) -> None:
        name = f"g{step:012d}-a{attempt:04d}"
        self.event(attempt, "saved", generation=name, step=step, seconds=seconds, bytes=10)


@pytest.fixture
def written(tmp_path):
    return HandWritten(tmp_path / "run")
