"""A deterministic Slurm without daemons, processes or waiting: jobs, nodes, a queue, and a clock that you turn.

For tests of what decides over jobs: thousands of preemptions, lost nodes and refused requeues in a second. Hand
`FakeSlurm.execute` to whatever runs Slurm's commands (`hpcresume.slurm.commands.Execute`); it answers in Slurm's own
words (22.05). Nothing happens by itself: `start_due` starts what can start, and what becomes of running jobs is yours
to say.

    slurm = FakeSlurm(nodes=4)
    job = slurm.submit("#!/bin/sh", nodes=2)
    slurm.start_due()
    slurm.lose_node(job.nodes[1])           # the job is being ended, and will come back
    slurm.gone(job)                         # its processes are dead: it waits for its second start
    slurm.advance(300)
    assert slurm.start_due() == [job] and job.restarts == 1

For ranks, scripts and signals that are real take `hpcresume.emulate.cluster.EmulatedCluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcresume.slurm.commands import Answer
from hpcresume.testing.fake_queue import FakeJob, FakeNode, FakeQueue
from hpcresume.testing.fake_slurm_commands import environment_of, run_command

__all__ = ["FakeJob", "FakeNode", "FakeSlurm", "Fault", "environment_of"]

Fault = Callable[[Sequence[str]], "Answer | None"]
"""Given a command before it is run: an answer instead, or None."""


class FakeSlurm(FakeQueue):
    """A queue that answers Slurm's commands; see `FakeQueue` for what can be done with it.

    Attributes:
        fault: called before each command.
        calls: every command that was run.
    """

    def __init__(self, nodes: int = 4, *, fault: Fault | None = None, **options: Any) -> None:
        super().__init__(nodes, **options)
        self.fault = fault
        self.calls: list[tuple[str, ...]] = []

    def execute(self, arguments: Sequence[str], timeout: float) -> Answer:  # noqa: ARG002 - as commands.Execute
        """Run one of Slurm's commands."""
        self.calls.append(tuple(arguments))
        failed = self.fault(arguments) if self.fault is not None else None
        if failed is not None:
            return failed
        answer = run_command(self, list(arguments))
        self.keep()
        return answer
