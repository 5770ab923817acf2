"""Starting a run again that was held or has ended: the job that waits is released, one that Slurm still knows is
requeued, else what was submitted is submitted again.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from hpcresume import console
from hpcresume.checkpoint.run import mark_done, reopen
from hpcresume.config.job_spec import JobSpec
from hpcresume.errors import RunBusyError, RunDirectoryError, RunError, SlurmError
from hpcresume.io.durable import append_line
from hpcresume.io.paths import RunPaths
from hpcresume.ops import by_hand
from hpcresume.ops.overview import Row, overview
from hpcresume.ops.submitted import Submission, read_submission
from hpcresume.ops.targets import typed
from hpcresume.ops.the_run import the_run
from hpcresume.slurm.orders import Order, give, release, requeue
from hpcresume.slurm.submission import sbatch
from hpcresume.submit.record import Folder

__all__ = ["Restart", "inside", "plan_restart"]

_OF_CHAIN = ("--dependency=", "--kill-on-invalid-dep=")
"""Options that a stage was submitted with because of those before it; its supervisor looks at these once more."""

SubmitFunction = Callable[[JobSpec], str]


@dataclass(frozen=True)
class Restart:
    """What is about to be done; `kind` is release, requeue, submit or nothing.

    Attributes:
        run: the run.
        kind: how it starts again.
        job_id: the job that starts again; of a new one not known before.
        orders: what Slurm is told, in order; the first that is followed ends it.
        submission: what is submitted again, if need be.
        reopens: is the run finished, and opened again?
        lifts_hold: was it held by its own budgets?
        state: what the run does, in words.
        done_facts: what its DONE says.
        held_because: why it was held.
    """

    run: RunPaths
    kind: str
    job_id: str | None
    orders: tuple[Order, ...]
    submission: Submission | None
    reopens: bool
    lifts_hold: bool
    state: str
    done_facts: dict[str, Any] = field(default_factory=dict)
    held_because: str = ""

    @property
    def steps(self) -> list[str]:
        """What will be done, one line each."""
        lines = [f"remove {self.run.done}: the run is no longer finished"] if self.reopens else []
        if self.lifts_hold:
            lines.append("record that a person released the run: its hold does not stop the next start")
        lines += [f"{shlex.join(order.arguments)}: {order.purpose}" for order in self.orders]
        if self.submission is not None and self.kind == "submit":
            lines.append(_submission_in_words(self.submission))
        return lines

    def carry_out(self, submit_function: SubmitFunction) -> str | None:
        """Do it; give the number of the job.

        Raises:
            SlurmError: Slurm refuses, or cannot be asked; the run is as it was.
            RunError: the run directory cannot be changed, or another submission is under way.
        """
        if self.kind == "nothing":
            return self.job_id
        # DONE and the hold are gone before the job may begin, and back again if it cannot.
        with typed(self.run), contextlib.ExitStack() as undo:
            if self.reopens:
                reopen(self.run)
                undo.callback(mark_done, self.run, self.done_facts)
            if self.lifts_hold:
                self._lift_hold()
                undo.callback(self._hold_again)
            job_id = self._start(submit_function)
            undo.pop_all()
        by_hand.note(self.run, "requeue", job_id=job_id, how=self.kind)
        return job_id

    def _lift_hold(self) -> None:
        # A supervisor goes by the first at the next start of the same job (a hold that somebody releases gives fresh
        # budgets), a session that has none by the second.
        self._record("held", result="accepted", by_hand=True)
        self._record("decision", decision="come-back", reason="released by hpcresume requeue", released=True)

    def _hold_again(self) -> None:
        self._record("held", result="refused", by_hand=True)
        self._record("decision", decision="hold", reason=self.held_because)

    def _record(self, event: str, **fields: Any) -> None:
        """Into the ledger of the attempt that was held, whose supervisor is gone."""
        ledger = self.run.attempt(self.run.attempt_numbers()[-1]).supervisor
        append_line(ledger, {"t": time.time(), "mono": 0.0, "event": event, **fields})

    def _start(self, submit_function: SubmitFunction) -> str | None:
        refused: SlurmError | None = None
        for order in self.orders:
            try:
                give(order)
            except SlurmError as error:
                refused = error
            else:
                return self.job_id
        if self.submission is None:
            assert refused is not None, "a plan without a submission has orders"
            raise refused
        return _submit_again(self.run, self.submission, submit_function)


def plan_restart(path: Path | str, *, reopen_done: bool = False) -> Restart:
    """What starts the run at `path` again.

    Raises:
        RunError: there is no run; it is finished and shall not be reopened; or nobody recorded how it was submitted.
        RunBusyError: it is at work.
        SlurmError: Slurm cannot be asked.
    """
    run = the_run(path)
    found = overview([run.root], finished=reopen_done)
    row = found.rows[0]
    if row.seen.done and not reopen_done:
        step = row.seen.done_facts.get("step")
        hint = f"--reopen; the training must then ask for more than {step} steps" if step is not None else "--reopen"
        raise RunError("this run is finished", where=str(run.root), hint=hint)
    if found.slurm_error is not None:
        raise found.slurm_error
    if row.state.state == "running":
        raise RunBusyError(f"this run is at work: {row.state.doing}", where=str(run.root), hint="hpcresume cancel RUN")
    with typed(run):
        submission = read_submission(run.root)
    return _plan(run, row, submission)


def _plan(run: RunPaths, row: Row, submission: Submission | None) -> Restart:
    newest, job = row.seen.newest, row.job
    words = f"{row.state.state}: {row.state.doing}"
    # A hold that the queue itself keeps is lifted by the release of the job.
    kept = newest is not None and newest.kept and job is not None and job.waiting
    lifts = newest is not None and newest.decided == "hold" and not row.seen.done and not kept
    plan = Restart(run, "nothing", row.job_id, (), None, row.seen.done, lifts, words, dict(row.seen.done_facts),
                   newest.reason if newest is not None else "")  # fmt: skip
    if job is not None and job.waiting:
        if job.held:
            return replace(plan, kind="release", orders=(release(job.id),))
        return replace(plan, reopens=False, lifts_hold=False)
    again = submission if submission is not None and _can_submit(submission) else None
    if job is not None and job.over:
        return replace(plan, kind="requeue", orders=(requeue(job.id),), submission=again)
    if again is not None:
        return replace(plan, kind="submit", submission=again, job_id=None)
    raise _nothing_recorded(run, submission)


def _can_submit(submission: Submission) -> bool:
    return submission.directory is not None


def _nothing_recorded(run: RunPaths, submission: Submission | None) -> RunDirectoryError:
    if submission is None:
        what = "Slurm has forgotten its job, and nothing here tells how it was submitted"
        return RunDirectoryError(what, where=str(run.root), hint="submit your script again: it goes on by itself")
    what = "where it was submitted from was not recorded"
    return RunDirectoryError(what, where=str(run.root), hint="hpcresume submit job.yaml in that folder")


def _submission_in_words(submission: Submission) -> str:
    where = f"cd {shlex.quote(str(submission.directory))} && "
    if submission.spec.get("function") is not None:
        return f"{where}submit {submission.spec['function']} again, by submitit"
    return f"{where}{shlex.join(_sbatch_words(submission))}"


def _sbatch_words(submission: Submission) -> list[str]:
    return ["sbatch", *_options(submission), str(Folder.of_run(submission.run).script)]


def _options(submission: Submission) -> list[str]:
    """As recorded; of an array this one task alone, of a chain without the jobs that it waited for then."""
    given = [word for word in submission.options if not (submission.stage and word.startswith(_OF_CHAIN))]
    return [*given, *([f"--array={submission.task}"] if submission.task is not None else [])]


def _submit_again(run: RunPaths, submission: Submission, submit_function: SubmitFunction) -> str:
    folder, source = Folder.of_run(run.root), Folder.of_run(submission.run)
    assert submission.directory is not None, "checked when it was planned"
    with folder.locked(), inside(submission.directory):
        if submission.spec.get("function") is not None:
            job_id = submit_function(_spec(submission))
        else:
            if source != folder:
                folder.write_script(source.script.read_text())
            job_id = sbatch(source.script, _options(submission))
        if submission.task is not None:
            job_id = f"{job_id}_{submission.task}"
        facts = {"spec": dict(submission.spec), "options": list(submission.options), "task": submission.task,
                 "directory": str(submission.directory), "stage": submission.stage}  # fmt: skip
        try:
            folder.write_job(job_id, facts)
        except OSError as error:  # the job is in the queue all the same
            console.tell(f"hpcresume: {folder.job} cannot be written ({error.strerror or error}): "
                         f"the next submission will not see job {job_id}")  # fmt: skip
    return job_id


def _spec(submission: Submission) -> JobSpec:
    try:
        return msgspec.convert(dict(submission.spec), JobSpec)
    except msgspec.ValidationError as error:
        where = str(Folder.of_run(submission.run).job)
        raise RunDirectoryError(f"the recorded submission is damaged: {error}", where=where) from error


@contextlib.contextmanager
def inside(directory: Path) -> Iterator[None]:
    """Relative paths in a script begin where it was submitted first.

    Raises:
        RunDirectoryError: the folder cannot be entered.
    """
    before = os.getcwd()
    try:
        os.chdir(directory)
    except OSError as error:
        what = f"the folder that it was submitted from cannot be entered: {error.strerror}"
        raise RunDirectoryError(what, where=str(directory), hint="submit it again by hand") from error
    try:
        yield
    finally:
        os.chdir(before)
