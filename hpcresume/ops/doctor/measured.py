"""What a run's ledgers tell of how long its saves and steps took, and how large its newest generation is."""

from __future__ import annotations

from hpcresume.io.paths import RunPaths
from hpcresume.io.timings import read_timings
from hpcresume.observe.ledger_reader import read_ledger
from hpcresume.ops.doctor.timing import Measured

__all__ = ["measure_run"]

ATTEMPTS = 5
"""The newest ones in which a save is looked for."""


def measure_run(run: RunPaths) -> Measured:
    """Look at the newest attempts.

    Raises:
        OSError: a file is there and cannot be read.
    """
    nbytes: int | None = None
    for number in reversed(run.attempt_numbers()[-ATTEMPTS:]):
        saved = [record for record in read_ledger(run.attempt(number)) if record.event == "saved"]
        if saved:
            nbytes = int(saved[-1].number("bytes")) or None
            break
    return Measured(read_timings(run), nbytes)
