"""One rank of a watchdog run under mpiexec: `python watchdog_driver.py HOW DIRECTORY TIMEOUT RANK…`.

The ranks named do not come to the second barrier, in the way that HOW says.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from hpcresume.comm.choose import choose_ranks
from hpcresume.comm.watchdog import Watchdog


def stay_away(how: str, timeout: float) -> None:
    """Do what `how` says: none of these reaches a barrier, but for "late"."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.6 * timeout if how == "late" else 600)


def main(how: str, directory: Path, timeout: float, absent: set[int]) -> None:
    ranks = choose_ranks("mpi", os.environ)
    watchdog = Watchdog(ranks, directory / "roll-call", timeout)
    with watchdog.guard("start"):
        ranks.barrier()
    (directory / f"started-{ranks.rank}").touch()
    if ranks.rank in absent:
        stay_away(how, timeout)
    with watchdog.guard("save step 40"):
        ranks.barrier()
    (directory / f"passed-{ranks.rank}").touch()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), {int(rank) for rank in sys.argv[4:]})
