"""A job as the emulated controller knows it: what it asked for and where it stands. Holds state; decides nothing."""

from __future__ import annotations

import enum
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcresume.emulate.dependencies import Dependency
from hpcresume.emulate.nodes import Allocation, Partition
from hpcresume.emulate.request import JobRequest
from hpcresume.emulate.rules import EndedBy
from hpcresume.io.users import user_name
from hpcresume.slurm.filenames import file_name

if TYPE_CHECKING:
    from hpcresume.emulate.result import AttemptEnd

__all__ = ["OVER", "Job", "Phase", "Step"]

OVER = frozenset({"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"})
"""States from which a job never starts again by itself."""


class Phase(enum.Enum):
    """Where a running job stands in Slurm's eyes."""

    RUNNING = "running"
    GRACE = "grace"
    ENDING = "ending"


@dataclass
class Step:
    """One srun inside a job; `limit` is how many seconds it may take, None when it has been ended for it."""

    number: int
    name: str
    nodes: tuple[str, ...]
    tasks: tuple[int, ...]
    start: float
    end: float | None = None
    exit_code: int = 0
    cancelled: bool = False
    limit: float | None = None


@dataclass
class Job:
    """One job or one task of an array. Times are unix seconds."""

    number: int
    request: JobRequest
    partition: Partition
    submitted: float
    array: int | None = None
    task: int | None = None
    dependency: tuple[Dependency, ...] = ()
    any_dependency: bool = False
    failed_dependencies: frozenset[Dependency] = frozenset()
    priority: int = 0
    requeue: bool = True
    limit: float | None = None
    state: str = "PENDING"
    reason: str = "None"
    begin: float | None = None
    held: str = ""
    restarts: int = 0
    exclude: tuple[str, ...] = ()
    allocation: Allocation | None = None
    start: float | None = None
    end: float | None = None
    preempted_at: float | None = None
    wants_requeue: bool = False
    phase: Phase = Phase.RUNNING
    ended_by: EndedBy = EndedBy.ITSELF
    next_at: float = float("inf")
    warned_of_limit: bool = False
    exit_code: int = 0
    killed_by: int = 0
    batch: subprocess.Popen[bytes] | None = None
    spool: Path | None = None
    steps: list[Step] = field(default_factory=list)
    attempts: list[AttemptEnd] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    first_start: float | None = None
    attempt_start: float = 0.0
    in_grace: bool = False
    counted: bool = False
    restarts_shown: int | None = None
    launches: int = 0
    srun_pids: set[int] = field(default_factory=set)

    @property
    def id(self) -> str:
        """As users write it: `12`, or `12_3` for a task of an array."""
        return str(self.number) if self.array is None else f"{self.array}_{self.task}"

    @property
    def over(self) -> bool:
        """Will it never start again by itself?"""
        return self.state in OVER

    @property
    def running(self) -> bool:
        """Has it nodes?"""
        return self.batch is not None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Its nodes, empty while it has none."""
        return () if self.allocation is None else self.allocation.nodes

    @property
    def ntasks(self) -> int:
        """Tasks that it has or asks for."""
        if self.allocation is not None:
            return sum(self.allocation.tasks)
        request = self.request
        return request.ntasks or request.least_nodes * (request.ntasks_per_node or 1)

    def output(self, letters: dict[str, str] | None = None) -> str:
        """Path of its log."""
        pattern = self.request.output or ("slurm-%A_%a.out" if self.array is not None else "slurm-%j.out")
        return str(Path(self.request.directory, file_name(pattern, {**self.letters(), **(letters or {})})))

    def error(self) -> str:
        """Path of its error log: the log unless told otherwise."""
        if self.request.error is None:
            return self.output()
        return str(Path(self.request.directory, file_name(self.request.error, self.letters())))

    def letters(self) -> dict[str, str]:
        """What stands for the letters of a file name pattern."""
        return {
            "A": str(self.array if self.array is not None else self.number),
            "a": str(self.task) if self.task is not None else "4294967294",
            "J": str(self.number),
            "j": str(self.number),
            "N": self.nodes[0] if self.nodes else "",
            "n": "0",
            "s": "batch",
            "t": "0",
            "u": user_name(),
            "x": self.request.name,
        }
