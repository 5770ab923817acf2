"""The job's processes on this machine, by emulated node and rank. Finds and signals; decides nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from hpcresume.emulate.environment import MARK
from hpcresume.io.processes import MarkedProcess, end_marked, marked_processes, send_signal

__all__ = ["JobProcesses"]


class JobProcesses:
    """All that carries the job's mark."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def all(self) -> list[MarkedProcess]:
        """Every process of the job."""
        return marked_processes(MARK, self._mark)

    def tasks(self) -> list[MarkedProcess]:
        """Every process inside the step: the ranks and their children, workers included.

        A signal to a step reaches all of them under proctrack/linuxproc and pgid, as watched on a cluster.
        """
        return [process for process in self.all() if _rank(process) is not None]

    def rank(self, number: int) -> MarkedProcess | None:
        """The rank's own process: of those with its number the one whose parent is none of them."""
        own = [process for process in self.all() if _rank(process) == number]
        pids = {process.pid for process in own}
        return next((process for process in own if process.parent not in pids), None)

    def node(self, number: int) -> list[MarkedProcess]:
        """Every process on a node; on n0 the supervisor and the ranks' launcher too."""
        return [process for process in self.all() if process.environ.get("HPCRESUME_NODE") == f"n{number}"]

    def kill(self, process: MarkedProcess) -> bool:
        """KILL one process; False when it was gone already."""
        return send_signal(process, signal.SIGKILL)

    def kill_node(self, number: int) -> int:
        """The node is gone: KILL all of it, those started meanwhile too. Returns how many there were."""
        killed: set[tuple[int, str]] = set()
        while alive := self.node(number):
            for process in alive:
                killed.add((process.pid, process.started))
                self.kill(process)
            time.sleep(0.002)
        return len(killed)

    def signal_tasks(self, numbers: Sequence[signal.Signals]) -> int:
        """Send signals (one at least), in order, to every process of the step; return how many processes got them."""
        reached = 0
        for task in self.tasks():
            for number in numbers:
                sent = send_signal(task, number)
            reached += sent
        return reached

    def end(self) -> int:
        """KILL all that is left; return how many there were."""
        return end_marked(MARK, self._mark)


def _rank(process: MarkedProcess) -> int | None:
    if "SLURM_STEP_ID" not in process.environ:
        return None
    text = process.environ.get("SLURM_PROCID", "")
    return int(text) if text.isdecimal() else None
