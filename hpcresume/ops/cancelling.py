"""Ending the job of a run for good; on wish it saves before.

A job that is warned saves, and its supervisor puts it back into the queue: it is cancelled there, where nothing of it
runs any more. Looks again until Slurm says that the job is over, since a requeue may come between.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcresume.errors import SaveError, SlurmError
from hpcresume.io.paths import RunPaths
from hpcresume.observe.glance import Glance, glance
from hpcresume.observe.ledger_reader import read_supervisor
from hpcresume.observe.lines import read_json_object
from hpcresume.ops import by_hand
from hpcresume.ops.overview import Row, overview
from hpcresume.ops.submitted import read_submission
from hpcresume.ops.targets import typed
from hpcresume.ops.the_run import the_run
from hpcresume.slurm.orders import Order, cancel, give, warn
from hpcresume.slurm.queue import QueuedJob, ask_queue

__all__ = ["Cancellation", "plan_cancellation"]

LOOK_EVERY = 0.5
"""Seconds between looks at the run's files while it saves."""
ASK_EVERY = 1.0
"""Seconds between two questions to Slurm while the job ends."""
LEAVE_SECONDS = 30.0
"""After its decision a job has so long to leave its nodes by itself; KillWait is 30 s by default (slurm.conf(5))."""
OVER_SECONDS = 60.0
"""How long to wait until Slurm says that the job is over."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cancellation:
    """What is about to be done.

    Attributes:
        run: the run.
        job_id: the job that will be cancelled; None when there is nothing to cancel.
        job: as squeue shows it; one of its tasks for an array.
        state: what the run does, in words.
        orders: what Slurm is told, in order.
        saves: is the job warned, and its commit waited for?
    """

    run: RunPaths
    job_id: str | None
    job: QueuedJob | None
    state: str
    orders: tuple[Order, ...]
    saves: bool = False

    def carry_out(self, say: Say, *, save_seconds: float) -> None:
        """Do it.

        Raises:
            SaveError: nothing was committed in time; the job is not cancelled.
            SlurmError: Slurm refuses, or cannot be asked.
        """
        if self.job_id is None:
            return
        if self.saves:
            self._save(say, save_seconds)
        for order in (*self._later(), *self.orders[1:]) if self.saves else self.orders:
            give(order)
        by_hand.note(self.run, "cancel", job_id=self.job_id, how="after a save" if self.saves else "without a save")
        say(f"job {self.job_id} is cancelled")
        self._see_it_over(say)

    def _save(self, say: Say, seconds: float) -> None:
        before = glance(self.run.root)
        give(self.orders[0])
        by_hand.note(self.run, "warn", job_id=self.job_id, how="to save before a cancel")
        say(f"job {self.job_id} is warned; waiting for its commit (at most {seconds:g} s)")
        until = time.monotonic() + seconds
        while not _settled(self.run, before, after := glance(self.run.root)):
            if _has_begun_anew(before, after):
                before = after
                give(self.orders[0])
                by_hand.note(self.run, "warn", job_id=self.job_id, how="to save before a cancel, in a new start")
                say(f"the run has begun anew without a save: job {self.job_id} is warned again")
            if time.monotonic() > until:
                raise SaveError(
                    f"no commit within {seconds:g} s after the warning; the job is not cancelled",
                    where=str(self.run.root),
                    hint="hpcresume logs RUN; cancel without --save, or a longer --wait",
                )
            time.sleep(LOOK_EVERY)
        say("the run has finished" if after.done else f"its newest generation is {after.generation or 'none'}")
        self._let_it_leave()

    def _later(self) -> list[Order]:
        """Cancels what the supervisor has submitted since, to go on instead where Slurm requeues nothing."""
        newest = glance(self.run.root).newest
        planned = {order.arguments for order in self.orders}
        orders = [cancel(each) for each in (newest.other_jobs if newest is not None else ())]
        return [order for order in orders if order.arguments not in planned]

    def _let_it_leave(self) -> None:
        """Its supervisor now requeues it or ends: a job that is cancelled before could still be requeued after.

        One that has started anew meanwhile has another start, and has done nothing yet that could be lost.
        """
        began = self.job.start if self.job is not None else None
        until = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < until:
            job = self._look()
            if job is None or not job.active or job.start != began:
                return
            time.sleep(LOOK_EVERY)

    def _see_it_over(self, say: Say) -> None:
        until = time.monotonic() + OVER_SECONDS
        while time.monotonic() < until:
            job = self._look()
            if job is None or job.over:
                return
            if job.waiting:  # requeued meanwhile
                give(self.orders[-1])
            time.sleep(ASK_EVERY)
        say(f"Slurm is still ending it: squeue --jobs={self.job_id}")

    def _look(self) -> QueuedJob | None:
        """The job, or that of an array's tasks which is furthest from being over."""
        assert self.job_id is not None, "there is a job to cancel"
        jobs = ask_queue([self.job_id]).values()
        return min(jobs, key=lambda job: (job.over, job.active), default=None)


def _settled(run: RunPaths, before: Glance, now: Glance) -> bool:
    """Is the run done, or has the warned attempt decided what follows, which comes after its commit?

    The next attempt may have begun between two looks: what the warned one decided stands in its own files.
    """
    newest, was = now.newest, before.newest
    if now.done or newest is None or was is None:
        return now.done
    if newest.attempt == was.attempt:
        return newest.decided != ""
    with typed(run):
        return bool(read_json_object(run.attempt(was.attempt).decision).get("decision"))


def _has_begun_anew(before: Glance, now: Glance) -> bool:
    """Is a newer attempt at work? A start that was lost before it could save leaves one that was never warned."""
    newest, was = now.newest, before.newest
    if newest is None or was is None or newest.attempt <= was.attempt:
        return False
    return newest.total is not None and newest.decided == ""


def plan_cancellation(path: Path | str, *, save: bool) -> Cancellation:
    """What a cancel of the run at `path` means now.

    Raises:
        RunError: there is no run, or it cannot be read.
        SlurmError: Slurm cannot be asked; or the run has no job in Slurm, though it is at work.
    """
    run = the_run(path)
    found = overview([run.root], finished=True)
    row = found.rows[0]
    if found.slurm_error is not None:
        raise found.slurm_error
    words = f"{row.state.state}: {row.state.doing}"
    if row.job is None or row.job.over:
        _refuse_without_slurm(row)
        return Cancellation(run, None, row.job, words, ())
    job_id = _whole_array(run) or row.job.id
    saves = save and _can_save(row)
    orders = [warn(job_id, "USR1", batch=_supervised(run))] if saves else []
    newest = row.seen.newest
    others = [cancel(each) for each in (newest.other_jobs if newest is not None else ()) if each != job_id]
    # Those that stand behind first: one of them could start as soon as the job is gone.
    return Cancellation(run, job_id, row.job, words, (*orders, *others, cancel(job_id)), saves)


def _refuse_without_slurm(row: Row) -> None:
    newest = row.seen.newest
    if row.state.state == "running" and newest is not None and newest.holder is not None:
        holder = newest.holder
        raise SlurmError(
            f"this run has no job in Slurm: process {holder.pid} on {holder.host} is at work",
            where=str(row.seen.root),
            hint="Ctrl-C where it was started: it saves and stops",
        )


def _whole_array(run: RunPaths) -> str | None:
    with typed(run):
        submission = read_submission(run.root)
    return submission.job_id if submission is not None and submission.array else None


def _can_save(row: Row) -> bool:
    """Only an attempt that is at work has something to save."""
    job, newest = row.job, row.seen.newest
    if job is None or not job.active or job.state in ("COMPLETING", "SUSPENDED", "STOPPED"):
        return False
    return newest is not None and newest.decided == "" and newest.holder is not None and newest.holder.job_id == job.id


def _supervised(run: RunPaths) -> bool:
    """Does `hpcresume launch` stand in the batch step? Else the ranks are told themselves."""
    numbers = run.attempt_numbers()
    with typed(run):
        records = read_supervisor(run.attempt(numbers[-1])) if numbers else ()
    return any(record.event == "started" and record.text("kind") != "submitit" for record in records)
