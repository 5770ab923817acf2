"""What ends the peers of a rank that fails where nobody waits for it: an uncaught error, a rank that never comes.

Python ends a failing program by MPI_Finalize, in which it waits for peers that wait for it in some collective: the
job hangs until its time limit. `python -m mpi4py` exists for this; here nobody has to remember it.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

from hpcresume import console
from hpcresume.errors import RanksMissingError

__all__ = ["end_peers_on_uncaught_errors", "ends_unless_all_come"]

FAREWELL_SECONDS: Final = 5.0
"""How long MPI_Abort may take before the process ends without it."""


class _Hook:
    """Python's excepthook, and then MPI_Abort if there are peers."""

    def __init__(self, previous: Any) -> None:
        self._previous = previous

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._previous(kind, error, trace)
        code = getattr(error, "exit_code", 1)
        _abort(code if isinstance(code, int) else 1)


def end_peers_on_uncaught_errors() -> None:
    """From now on an exception that nobody catches ends all ranks of an MPI program. Does nothing twice."""
    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)


@contextlib.contextmanager
def ends_unless_all_come(what: str, seconds: float) -> Iterator[None]:
    """End this process with its peers when the block, in which the ranks first meet, takes longer than this.

    Args:
        what: what is waited for.
        seconds: `math.inf` waits for ever.
    """
    if math.isinf(seconds):
        yield
        return
    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), _give_up, (what, seconds))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(what: str, seconds: float) -> None:
    console.tell(
        f"hpcresume: process {os.getpid()} has waited {seconds:g} s to {what}; some rank never came: "
        "it has failed before its session, or its node is gone"
    )
    abort = threading.Thread(target=_abort, args=(RanksMissingError.exit_code,), daemon=True)
    abort.start()
    abort.join(FAREWELL_SECONDS)
    os._exit(RanksMissingError.exit_code)


def _abort(code: int) -> None:
    """MPI_Abort, if MPI runs and there is anybody else."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized() or mpi.COMM_WORLD.Get_size() == 1:
        return
    console.flush()
    mpi.COMM_WORLD.Abort(code)
