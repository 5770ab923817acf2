"""The processes of all emulated jobs on this machine: which job, node, step and rank each belongs to.

Finds and signals; decides nothing. A process is known by a mark in its environment, or by an ancestor that has one
(`env -i`). Linux's /proc only.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcresume.io.processes import MarkedProcess, send_signal

__all__ = ["ENGINE", "MARK", "TASK", "Census", "Member", "kill", "kill_one", "send"]

MARK = "HPCRESUME_EMULATED_JOB"
"""TOKEN.JOB for everything that a job starts, TOKEN.JOB.engine for what stands behind srun (mpiexec, slurmstepd)."""
ENGINE = ".engine"
TASK = "HPCRESUME_EMULATED_TASK"
"""STEP.RANK for the tasks of srun."""

_PROC = Path("/proc")
_RANKS = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""What tells the rank of a process that mpiexec started (Open MPI, Hydra)."""


@dataclass(frozen=True)
class Member:
    """A process of a job.

    Attributes:
        process: pid, parent and more.
        job: the job's number.
        node: index of its node within the job, counted from the batch node.
        step: number of its step; None in the batch step; -1 for a rank of mpiexec on another node than the batch
            node, which a real mpiexec starts through srun.
        rank: its rank in the step or under mpiexec, -1 for none.
        engine: does it stand behind srun, so that no signal of the job's concerns it?
    """

    process: MarkedProcess
    job: int
    node: int
    step: int | None
    rank: int
    engine: bool

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


class Census:
    """Looks at /proc."""

    def __init__(self, token: str, tasks_per_node: Callable[[int], Sequence[int]]) -> None:
        """`tasks_per_node` gives a job's tasks on each of its nodes, in their order."""
        self._needle = f"{MARK}={token}.".encode()
        self._prefix = f"{token}."
        self._tasks = tasks_per_node

    def members(self, jobs: Iterable[int] | None = None) -> list[Member]:
        """All processes of these jobs (of every job when None), zombies not."""
        wanted = None if jobs is None else set(jobs)
        marked: dict[int, Member] = {}
        others: list[tuple[int, int, str]] = []
        for entry in os.listdir(_PROC):
            if entry.isdecimal():
                self._read(int(entry), marked, others)
        _adopt(marked, others)
        return [m for m in marked.values() if (wanted is None or m.job in wanted) and m.pid != os.getpid()]

    def _read(self, pid: int, marked: dict[int, Member], others: list[tuple[int, int, str]]) -> None:
        try:
            data = (_PROC / str(pid) / "environ").read_bytes()
            text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        except OSError:
            return
        stat = text[text.rindex(")") + 2 :].split()
        if stat[0] in ("Z", "X"):
            return
        if self._needle in data and (member := self._member(pid, data, stat)) is not None:
            marked[pid] = member
        elif stat[1] not in ("0", "2"):
            others.append((pid, int(stat[1]), stat[19]))

    def _member(self, pid: int, data: bytes, stat: Sequence[str]) -> Member | None:
        pairs = (pair.decode(errors="surrogateescape").partition("=") for pair in data.split(b"\0") if pair)
        environ = {key: text for key, _, text in pairs}
        mark = environ.get(MARK, "")
        if not mark.startswith(self._prefix):
            return None
        number = mark.removeprefix(self._prefix).removesuffix(ENGINE)
        if not number.isdecimal():
            return None
        process = MarkedProcess(pid, int(stat[1]), stat[19], environ)
        job = int(number)
        node, step, rank = self._place(job, environ)
        return Member(process, job, node, step, rank, mark.endswith(ENGINE))

    def _place(self, job: int, environ: dict[str, str]) -> tuple[int, int | None, int]:
        step, dot, rank = environ.get(TASK, "").partition(".")
        if dot and step.isdecimal() and rank.isdecimal():
            node = environ.get("HPCRESUME_NODE_INDEX", "0")
            return int(node) if node.isdecimal() else 0, int(step), int(rank)
        text = next((environ[name] for name in _RANKS if name in environ), "")
        if not text.isdecimal():
            return 0, None, -1
        place = _node_of(int(text), self._tasks(job))
        return place, -1 if place else None, int(text)


def _node_of(rank: int, tasks: Sequence[int]) -> int:
    """Where mpiexec puts a rank on a real cluster: nodes are filled one after the other."""
    for node, count in enumerate(tasks):
        if rank < count:
            return node
        rank -= count
    return max(0, len(tasks) - 1)


def _adopt(marked: dict[int, Member], others: Sequence[tuple[int, int, str]]) -> None:
    """Count children of members in that hide their environment."""
    waiting = list(others)
    found = True
    while found:
        found, left = False, []
        for pid, parent, started in waiting:
            above = marked.get(parent)
            if above is None:
                left.append((pid, parent, started))
                continue
            process = MarkedProcess(pid, parent, started, {})
            marked[pid] = Member(process, above.job, above.node, above.step, above.rank, above.engine)
            found = True
        waiting = left


def send(members: Iterable[Member], numbers: Sequence[signal.Signals]) -> int:
    """Signal each, in order; return how many got them. What stands behind srun is spared."""
    reached = 0
    for member in members:
        if member.engine:
            continue
        got = False
        for number in numbers:
            got = send_signal(member.process, number) or got
        reached += got
    return reached


def kill_one(member: Member) -> bool:
    """KILL one process; False when it was gone already."""
    return send_signal(member.process, signal.SIGKILL)


def kill(look: Callable[[], list[Member]], *, within: float = 5.0) -> int:
    """KILL all that `look` finds until it finds none, `within` seconds at most; return how many there were."""
    met: set[tuple[int, str]] = set()
    until = time.monotonic() + within
    while (alive := look()) and time.monotonic() < until:
        for member in alive:
            if not member.engine:
                met.add((member.pid, member.process.started))
            send_signal(member.process, signal.SIGKILL)
        time.sleep(0.002)
    return len(met)
