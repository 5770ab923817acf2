"""Does the holder of a run's newest attempt still run? Asked of this machine, of Slurm, and of the files it writes."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import Final

from hpcresume.checkpoint.attempts import Holder
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.commands import job_alive

__all__ = ["Aliveness"]

SILENCE_OF_THE_DEAD: Final = 120.0
"""Seconds without a sign of life after which a holder that nothing else can be asked about counts as gone."""


class Aliveness:
    """Asked by rank 0 while it claims. What saves now and then (`hr.save`) is in the way of other jobs only."""

    def __init__(self, run: RunPaths, own_job: str | None) -> None:
        self._run = run
        self._own_job = own_job

    def __call__(self, holder: Holder) -> bool:
        other_job = holder.job_id is not None and holder.job_id != self._own_job
        return (holder.holds or other_job) and self.lives(holder)

    def lives(self, holder: Holder) -> bool:
        """Does the process or job live, whether it holds the run or not?"""
        here = holder.process_alive()
        if here is not None:
            # This very process held it in an earlier session, which is closed: there is one at a time.
            return here and holder.pid != os.getpid()
        # Slurm would say that our own job lives, whichever of its steps held the run.
        asked = holder.job_id is not None and holder.job_id != self._own_job
        answer = job_alive(holder.job_id) if asked and holder.job_id is not None else None
        return self._silence() < SILENCE_OF_THE_DEAD if answer is None else answer

    def _silence(self) -> float:
        """Seconds since the newest attempt last wrote anything."""
        paths = self._run.attempt(max(self._run.attempt_numbers(), default=0))
        times = []
        for path in (paths.progress, paths.ledger, paths.claim):
            with contextlib.suppress(OSError):
                times.append(path.stat().st_mtime)
        return time.time() - max(times) if times else math.inf
