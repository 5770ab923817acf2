"""The life of one emulated job: attempt after attempt, until Slurm would not start it again."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from typing import BinaryIO

from hpcresume.config.timetable import EmulatedJob, TimetableEntry
from hpcresume.emulate.attempt import Attempt
from hpcresume.emulate.environment import batch_environ
from hpcresume.emulate.output import LogFollower
from hpcresume.emulate.processes import JobProcesses
from hpcresume.emulate.result import AttemptEnd, EmulationResult
from hpcresume.emulate.rules import Ended, aftermath
from hpcresume.emulate.stage import JobRecord, Stage
from hpcresume.model import Emit, Event, ignore_events

__all__ = ["AttemptEnd", "EmulatedJob", "EmulationResult", "emulate"]

Between = Callable[[AttemptEnd], None]


def emulate(
    job: EmulatedJob,
    *,
    emit: Emit = ignore_events,
    between_attempts: Between | None = None,
    output: BinaryIO | None = None,
) -> EmulationResult:
    """Play Slurm for one job on this machine, to its end.

    Every attempt runs `hpcresume launch -- COMMAND` as its batch script; the stand-ins for scontrol, squeue, sinfo
    and srun are first on its PATH, srun starting the ranks under this machine's mpiexec. Whatever happens,
    KeyboardInterrupt included, no process of the job outlives this call.

    Args:
        job: the command and its timetable.
        emit: told what happens, as it happens; `hpcresume.emulate.lines.line` makes a line of an event.
        between_attempts: called after an attempt that is requeued, while nothing of the job runs.
        output: gets what the job prints, all attempts one after the other.

    Raises:
        ConfigError: there is no mpiexec.
    """
    stage = Stage(job)
    try:
        return _Life(job, stage, emit, between_attempts, output).run()
    finally:
        stage.close()


class _Life:
    """The state between attempts."""

    def __init__(
        self, job: EmulatedJob, stage: Stage, emit: Emit, between: Between | None, output: BinaryIO | None
    ) -> None:
        self._job = job
        self._stage = stage
        self._emit = emit
        self._between = between
        self._output = output
        self._mark = secrets.token_hex(8)
        self._processes = JobProcesses(self._mark)
        self._start = time.monotonic()
        self._waiting: tuple[TimetableEntry, ...] = job.timetable
        self._attempts: list[AttemptEnd] = []

    def run(self) -> EmulationResult:
        """Attempts until the end."""
        while True:
            end = self._attempt(len(self._attempts) + 1)
            self._attempts.append(end)
            if not end.requeued:
                return self._finish(end.state)
            if len(self._attempts) >= self._job.max_attempts:
                return self._finish("PENDING")
            self._pend(end)

    def _attempt(self, number: int) -> AttemptEnd:
        start = time.time()
        environ = batch_environ(
            self._job,
            outer=os.environ,
            mark=self._mark,
            programs=self._stage.programs,
            launch_parent=self._stage.launch_parent(number),
            restarts=number - 1,
            start=start,
        )
        follower = LogFollower(self._stage.log(number), self._output)
        self._tell("start", attempt=number, nodes=self._job.node_list, ranks=self._job.ntasks)
        try:
            ended, fired = self._live(number, environ, follower)
        finally:
            self._processes.end()
            follower.close()
        after = aftermath(ended, requeue=self._job.requeue, slurm=self._job.slurm)
        self._stage.publish(JobRecord("PENDING" if after.requeued else after.state, restarts=number))
        end = AttemptEnd(
            number=number,
            start=start,
            end=time.time(),
            exit_code=ended.exit_code,
            state=after.state,
            requeued=after.requeued,
            why=after.why,
            fired=tuple(map(str, fired)),
            log=self._stage.log(number) if self._job.keep_logs is not None else None,
        )
        self._tell("end", attempt=number, exit_code=end.exit_code, state=end.state, requeued=end.requeued, why=end.why)
        return end

    def _live(
        self, number: int, environ: dict[str, str], follower: LogFollower
    ) -> tuple[Ended, tuple[TimetableEntry, ...]]:
        attempt = Attempt(
            self._job,
            self._stage,
            self._processes,
            number=number,
            environ=environ,
            job_start=self._start,
            follower=follower,
            tell=self._tell,
        )
        try:
            ended = attempt.live(self._waiting)
        finally:
            attempt.close()
        remaining = list(self._waiting)
        for entry in attempt.fired:
            remaining.remove(entry)
        self._waiting = tuple(remaining)
        return ended, tuple(attempt.fired)

    def _pend(self, end: AttemptEnd) -> None:
        """In the queue again: nothing of the job runs."""
        self._tell("pending", delay=self._job.requeue_delay)
        until = time.monotonic() + self._job.requeue_delay
        if self._between is not None:
            self._between(end)
        time.sleep(max(0.0, until - time.monotonic()))

    def _finish(self, state: str) -> EmulationResult:
        result = EmulationResult(tuple(self._attempts), state, tuple(map(str, self._waiting)))
        for entry in result.never_fired:
            self._tell("never-fired", entry=entry)
        self._tell("over", state=state, attempts=len(self._attempts), exit_code=result.exit_code)
        return result

    def _tell(self, name: str, **fields: object) -> None:
        self._emit(Event(name, {"at": round(time.monotonic() - self._start, 3), **fields}))
