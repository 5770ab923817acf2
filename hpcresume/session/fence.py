"""Notices that a newer attempt of the run has begun, and sees to it that this process ends.

A node that Slurm believes to be lost can go on: its ranks train, and write, beside the job's next start (split brain).
What they commit is an orphan, but they cost a machine, and nobody tells them. So a thread of each process looks whether
the next attempt has been claimed. Rank 0's ballot carries it to all ranks, which leave together at a step boundary; a
rank that cannot, since its peers were killed or its step is long, is ended. No collective waits for this thread, and
it touches nothing but one name in the run directory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpcresume.console import tell
from hpcresume.errors import FencedError

__all__ = ["FENCE_SECONDS", "LEAVE_SECONDS", "Fence", "fenced"]

FENCE_SECONDS: Final = 5.0
"""Between two looks of rank 0."""
OTHERS_SECONDS: Final = 30.0
"""Between two looks of any other rank, of which there may be thousands."""
LEAVE_SECONDS: Final = 60.0
"""From the first sight of the newer attempt until a process that is still in the session is ended."""


class Fence(threading.Thread):
    """Looks for the newer attempt while this one is open.

    Attributes:
        overtaken: it has begun.

    Args:
        claim: the file by which the next attempt is claimed.
        attempt: the number of this one.
        rank: of this process.
        exit: ends this process (tests put something else here).
    """

    def __init__(self, claim: Path, attempt: int, rank: int, exit: Callable[[int], object] = os._exit) -> None:
        super().__init__(name="hpcresume fence", daemon=True)
        self.overtaken = False
        self._claim = claim
        self._attempt = attempt
        self._rank = rank
        self._exit = exit
        self._closed = threading.Event()

    def close(self) -> None:
        """The session is over: whatever begins now is none of its business."""
        self._closed.set()

    def run(self) -> None:
        """Body of the thread."""
        pause = FENCE_SECONDS if self._rank == 0 else OTHERS_SECONDS
        while not self._closed.wait(pause):
            if _is_there(self._claim):
                self.overtaken = True
                break
        if self._closed.wait(LEAVE_SECONDS):
            return
        tell(f"hpcresume: rank {self._rank}: {fenced(self._attempt).what}, and it cannot leave in order: ended")
        self._exit(FencedError.exit_code)


def fenced(attempt: int) -> FencedError:
    """The error by which all ranks leave."""
    return FencedError(
        f"attempt {attempt + 1} of this run has begun; attempt {attempt} leaves",
        where=f"attempt {attempt}",
        hint="nothing: the newer one goes on, and what this one saved since is in nobody's way",
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the filesystem is away: nobody knows
        return False
