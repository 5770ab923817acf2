"""One attempt of an emulated job: starts the batch step, plays the scheduler until nothing of it is left.

Owns the attempt's phases (running, in its grace, ending) and the deeds; who is signalled is in `rules`.
"""

from __future__ import annotations

import enum
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from hpcresume.config.timetable import AtTime, EmulatedJob, NodeKill, Preemption, RankKill, TimetableEntry
from hpcresume.emulate.output import LogFollower
from hpcresume.emulate.processes import JobProcesses
from hpcresume.emulate.progress import ProgressReader
from hpcresume.emulate.rules import Delivery, Ended, EndedBy, Target, end_sequence, limit_warning, preemption_warning
from hpcresume.emulate.stage import JobRecord, Stage
from hpcresume.io.processes import SHIM

__all__ = ["Attempt"]

TICK = 0.004
"""Seconds between looks: a step of a small training takes a few milliseconds."""

Tell = Callable[..., None]


class _Phase(enum.Enum):
    """Where the attempt stands in Slurm's eyes."""

    RUNNING = "running"
    GRACE = "grace"
    ENDING = "ending"


class Attempt:
    """One start of the job."""

    def __init__(
        self,
        job: EmulatedJob,
        stage: Stage,
        processes: JobProcesses,
        *,
        number: int,
        environ: Mapping[str, str],
        job_start: float,
        follower: LogFollower,
        tell: Tell,
    ) -> None:
        """Start the batch step. `job_start` is the monotonic time of the job's first start."""
        self._job = job
        self._stage = stage
        self._processes = processes
        self._job_start = job_start
        self._follower = follower
        self._tell = tell
        self._start = time.monotonic()
        self._unix = time.time()
        self._phase = _Phase.RUNNING
        self._by = EndedBy.ITSELF
        self._next = float("inf")
        self._warned_of_limit = job.time_limit is None
        self._progress = ProgressReader(stage.launch_parent(number))
        limit = None if job.time_limit is None else self._unix + job.time_limit
        self._record = JobRecord("RUNNING", restarts=number - 1, start=self._unix, end=limit)
        self.fired: list[TimetableEntry] = []
        stage.publish(self._record)
        stage.publish_nodes()
        self._batch = self._start_batch(environ)

    def _start_batch(self, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """What a good batch script does: `exec env --block-signal=USR1 … hpcresume launch -- COMMAND`.

        KILL comes to it should we die; the supervisor in turn has its ranks ended when it dies.
        """
        shim = [sys.executable, "-S", "-I", str(SHIM), "--only-blocked", "--block", "USR1", "--block", "USR2",
                "--end-with-parent", "KILL", "--"]  # fmt: skip
        supervisor = [sys.executable, "-m", "hpcresume", "launch", *self._job.launch_options, "--"]
        return subprocess.Popen(
            [*shim, *supervisor, *self._job.command],
            stdin=subprocess.DEVNULL,
            stdout=self._follower.file,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            start_new_session=True,
        )

    def live(self, timetable: Iterable[TimetableEntry]) -> Ended:
        """Play the scheduler until the batch step is over; entries that come true are appended to `fired`."""
        waiting = list(timetable)
        while (code := self._batch.poll()) is None:
            waiting = [entry for entry in waiting if not self._try(entry)]
            self._advance(time.monotonic())
            self._follower.pump()
            time.sleep(TICK)
        return Ended(self._ended_by(), code if code >= 0 else 128 - code, self._phase is _Phase.GRACE)

    def close(self) -> None:
        """Let nothing of the attempt live on: Slurm ends the remaining steps with the batch script."""
        self._processes.end()
        self._batch.wait()
        self._progress.close()
        self._follower.pump()

    # ---- the timetable

    def _try(self, entry: TimetableEntry) -> bool:
        """Make an entry come true if it is due and possible now."""
        if not self._due(entry):
            return False
        if isinstance(entry, Preemption):
            done = self._preempt()
        elif isinstance(entry, RankKill):
            done = self._kill_rank(entry.rank)
        else:
            done = self._kill_node(entry)
        if done:
            self.fired.append(entry)
        return done

    def _due(self, entry: TimetableEntry) -> bool:
        if isinstance(entry.when, AtTime):
            return time.monotonic() - self._job_start >= entry.when.seconds
        return self._progress.step() >= entry.when.step

    def _preempt(self) -> bool:
        if self._phase is not _Phase.RUNNING:
            return False
        now = time.time()
        end = now + self._job.grace
        planned = end if self._record.end is None else min(self._record.end, end)
        self._publish(preempted_at=now, end=planned)
        self._phase, self._next = _Phase.GRACE, time.monotonic() + (planned - now)
        sent = self._deliver(preemption_warning(self._job.signal, user_signal=self._job.user_signal))
        self._tell("preempt", nodes=self._job.node_list, sent=sent, grace=self._job.grace)
        if self._job.grace <= 0:
            self._begin_end(EndedBy.PREEMPTION)
        return True

    def _kill_rank(self, number: int) -> bool:
        rank = self._processes.rank(number)
        if rank is None:
            return False
        if not self._processes.kill(rank):
            return False
        self._tell("kill-rank", rank=number, pid=rank.pid, step=self._progress.step())
        return True

    def _kill_node(self, entry: NodeKill) -> bool:
        if self._phase is _Phase.ENDING:
            return False
        if not self._processes.node(entry.node):
            return False
        self._stage.publish_nodes(down=entry.node)
        count = self._processes.kill_node(entry.node)
        self._tell("kill-node", node=f"n{entry.node}", processes=count, step=self._progress.step())
        self._begin_end(EndedBy.NODE_FAILURE)
        return True

    # ---- the scheduler

    def _advance(self, now: float) -> None:
        """What time and the job's own wishes bring."""
        if self._phase is not _Phase.ENDING and self._stage.take_requeue():
            self._tell("requeue-asked")
            self._begin_end(EndedBy.REQUEUE)
        if self._phase is not _Phase.ENDING and self._job.time_limit is not None:
            self._watch_limit(now - self._start, self._job.time_limit)
        if self._phase is _Phase.GRACE and now >= self._next:
            self._tell("grace-over")
            self._begin_end(EndedBy.PREEMPTION)
        elif self._phase is _Phase.ENDING and now >= self._next:
            self._next = float("inf")
            self._tell("kill", processes=self._processes.end())

    def _watch_limit(self, elapsed: float, limit: float) -> None:
        lead = self._job.signal.lead if self._job.signal is not None else 0.0
        if not self._warned_of_limit and elapsed >= limit - lead:
            self._warned_of_limit = True
            sent = self._deliver(limit_warning(self._job.signal)) if self._phase is _Phase.RUNNING else ""
            if sent:
                self._tell("limit-near", sent=sent, left=max(0.0, limit - elapsed))
        if elapsed >= limit:
            self._tell("time-limit", limit=limit)
            self._begin_end(EndedBy.TIME_LIMIT)

    def _ended_by(self) -> EndedBy:
        """A wish to be requeued counts for a job at its time limit and for one that has just ended, too."""
        asked = self._stage.take_requeue()
        return EndedBy.REQUEUE if asked and self._by in (EndedBy.ITSELF, EndedBy.TIME_LIMIT) else self._by

    def _begin_end(self, by: EndedBy) -> None:
        """CONT and TERM to all, KILL after KillWait."""
        self._by, self._phase = by, _Phase.ENDING
        self._next = time.monotonic() + self._job.kill_wait
        self._publish_ending(by)
        sent = self._deliver(end_sequence())
        self._tell("end-sequence", why=by.value, sent=sent, kill_wait=self._job.kill_wait)

    def _publish_ending(self, by: EndedBy) -> None:
        """As seen on 22.05: COMPLETING and little else; Restarts tells first that the job will be started again."""
        if by is EndedBy.TIME_LIMIT:
            self._publish(state="COMPLETING", reason="TimeLimit", end=time.time())
        elif self._job.requeue:
            self._publish(state="COMPLETING", restarts=self._record.restarts + 1, end=None, preempted_at=None)
        else:
            self._publish(state="COMPLETING", end=time.time())

    def _deliver(self, deliveries: Iterable[Delivery]) -> str:
        """Send; return for people what went where."""
        texts = []
        for delivery in deliveries:
            names = "+".join(number.name.removeprefix("SIG") for number in delivery.signals)
            if delivery.target is Target.RANKS:
                count = self._processes.signal_tasks(delivery.signals)
                texts.append(f"{names} to the ranks ({count} processes)")
            else:
                self._signal_batch(delivery.signals)
                texts.append(f"{names} to the batch script")
        return ", ".join(texts)

    def _signal_batch(self, numbers: Iterable[signal.Signals]) -> None:
        if self._batch.poll() is None:
            for number in numbers:
                self._batch.send_signal(number)

    def _publish(self, **changes: Any) -> None:
        self._record = replace(self._record, **changes)
        self._stage.publish(self._record)
