"""`hpcresume drill`: interrupts a running job of the user's for real, and watches until the run goes on.

Slurm does the rest, as at night: nothing here helps the run to come back.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcresume.errors import ConfigError, RunDirectoryError, SlurmError
from hpcresume.io.paths import RunPaths
from hpcresume.observe.facts import read_facts
from hpcresume.observe.history import read_history
from hpcresume.observe.ledger_reader import Record, read_ledger, read_metrics, read_supervisor
from hpcresume.ops import by_hand
from hpcresume.ops.doctor.given import Given, ask_given
from hpcresume.ops.doctor.measured import measure_run
from hpcresume.ops.drill_judgement import Asked, judge
from hpcresume.ops.drill_report import DrillReport, compare_curves
from hpcresume.ops.overview import Row, overview
from hpcresume.ops.the_run import the_run
from hpcresume.slurm.accounting import warning_of_job
from hpcresume.slurm.batch_script import AskedWarning
from hpcresume.slurm.commands import execute, show_job
from hpcresume.slurm.orders import Order, give, owner, requeue, warn
from hpcresume.slurm.queue import said

__all__ = ["WARNINGS", "Drill", "plan_drill"]

WARNINGS = ("USR1", "USR2", "TERM", "HUP")
"""What a session hears as a warning, unless it was told otherwise."""
LOOK_EVERY = 0.5
ASK_EVERY = 5.0
"""Seconds between two looks at the run's files, and between two questions to Slurm."""
CLOCKS_DIFFER = 0.1
"""Seconds by which the clock of the job's node may be behind ours."""
SURE_LOOKS = 3
"""Answers of Slurm in a row by which the run counts as held or ended."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Drill:
    """What is about to be done to whom.

    Attributes:
        run: the run.
        job_id: its running job.
        order: what Slurm is told.
        how: warn, requeue or node.
        attempt, step: how far the run is.
        given: the time that a preemption leaves a job here.
        asked: what the job asked for.
    """

    run: RunPaths
    job_id: str
    order: Order
    how: str
    attempt: int
    step: int
    given: Given = field(default_factory=Given)
    asked: Asked = field(default_factory=Asked)

    @property
    def warned(self) -> bool:
        """Is it a warning, and no end without one?"""
        return self.how == "warn"

    def carry_out(self, say: Say, seconds: float) -> DrillReport:
        """Give the order, and watch until the run is past the step at which it was, or the time is over.

        Raises:
            SlurmError: Slurm refuses the order.
            OSError: a file of the run cannot be read.
        """
        at = time.time()
        give(self.order)
        by_hand.note(self.run, "drill", job_id=self.job_id, how=shlex.join(self.order.arguments))
        report = DrillReport(shlex.join(self.order.arguments), self.warned, self.attempt, self.step)
        say(f"{report.order}: {self.order.purpose}")
        seen = _watch(self.run, report, at, say, seconds)
        return replace(seen, judged=judge(self.how, seen.saved_after, self.given, self.asked, measure_run(self.run)))


def plan_drill(path: Path | str, *, how: str = "warn", signal_name: str | None = None) -> Drill:
    """What a drill of the run at `path` would be.

    Args:
        path: the run.
        how: warn; requeue: end it without a warning; node: kill the ranks of one node.
        signal_name: the warning; by default that of the job's own `--signal`, else USR1.

    Raises:
        ConfigError: this signal is no warning.
        RunError: there is no run, or it is not at work.
        SlurmError: Slurm cannot be asked, the job is somebody else's, or it would not come back.
    """
    if signal_name is not None and signal_name not in WARNINGS:
        raise ConfigError(f"{signal_name} is no warning", where="--signal", hint=", ".join(WARNINGS))
    run = the_run(path)
    found = overview([run.root])
    if found.slurm_error is not None:
        raise found.slurm_error
    row = found.rows[0]
    job_id, newest = _at_work(row), row.seen.newest
    assert newest is not None, "a run that is at work has an attempt"
    _refuse(job_id)
    assert row.job is not None, "a run that is at work has a job"
    signal, supervised = _signal_of(job_id), _supervised(run)
    if how == "warn":
        order = _warning(job_id, signal_name, signal, supervised=supervised)
    else:
        order = _requeue(job_id) if how == "requeue" else _lost_node(job_id, row.job.nodes)
    given = ask_given(row.job.partition, job_id) if how != "node" else Given()
    asked = Asked(signal.lead if signal is not None else None, supervised)
    return Drill(run, job_id, order, how, newest.attempt, newest.step, given, asked)


def _at_work(row: Row) -> str:
    """The job, if an attempt of it has begun and not yet decided to stop."""
    job, newest = row.job, row.seen.newest
    if job is None or job.state != "RUNNING" or newest is None or newest.decided != "":
        what = f"the run is not at work ({row.state.state}: {row.state.doing})"
        raise RunDirectoryError(what, where=str(row.seen.root), hint="a drill needs a run whose job trains now")
    if newest.holder is None or newest.holder.job_id != job.id or newest.total is None:
        what = f"job {job.id} runs, and no step was begun in it yet"
        raise RunDirectoryError(what, where=str(row.seen.root), hint="again when hpcresume status shows steps")
    return job.id


def _refuse(job_id: str) -> None:
    if owner(job_id) != os.getuid():
        raise SlurmError(
            f"job {job_id} is not yours", where=f"user {os.getuid()}", hint="a drill is for one's own jobs"
        )
    if show_job(job_id, name=None).requeueable is False:
        hint = "submit it with --requeue; for this one: scontrol update JobId=" + job_id + " Requeue=1"
        raise SlurmError(f"job {job_id} has Requeue=0: it would not come back", where=f"job {job_id}", hint=hint)


def _supervised(run: RunPaths) -> bool:
    return any(r.event == "started" and r.text("kind") != "submitit" for r in _supervisor(run))


def _warning(job_id: str, name: str | None, asked: AskedWarning | None, *, supervised: bool) -> Order:
    """As Slurm would: by the signal that the job asked for, to whom it asked for."""
    named = name or (asked.name if asked is not None and asked.name in WARNINGS else "USR1")
    return warn(job_id, named, batch=asked.batch if asked is not None else supervised)


def _requeue(job_id: str) -> Order:
    return replace(requeue(job_id), purpose="ends the job without a warning and puts it back into the queue")


def _lost_node(job_id: str, nodes: str) -> Order:
    """The last node, so that of several it is not the one of the supervisor."""
    answer = execute(["scontrol", "show", "hostnames", nodes], 15.0)
    names = answer.out.split() if answer.code == 0 else []
    if not names or not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,255}", name) for name in names):
        raise SlurmError(f"the job's nodes are not known: {said(answer)}", where=f"job {job_id}", hint="--requeue")
    words = ("srun", f"--jobid={_own_number(job_id)}", "--overlap", "--mpi=none", "--nodes=1", "--ntasks=1",
             f"--nodelist={names[-1]}", sys.executable, "-m", "hpcresume.ops.drill_kill", job_id)  # fmt: skip
    return Order(words, f"kills every rank on {names[-1]}, as if that node were lost")


def _own_number(job_id: str) -> str:
    """The number of an array's task by itself: all that srun takes."""
    if "_" not in job_id:
        return job_id
    answer = execute(["squeue", "--noheader", "--array", "--format=%A", f"--jobs={job_id}"], 15.0)
    numbers = answer.out.split() if answer.code == 0 else []
    if len(numbers) != 1 or not numbers[0].isdecimal():
        raise SlurmError(
            f"the number of the task is not known: {said(answer)}", where=f"job {job_id}", hint="--requeue"
        )
    return numbers[0]


def _supervisor(run: RunPaths) -> tuple[Record, ...]:
    numbers = run.attempt_numbers()
    return read_supervisor(run.attempt(numbers[-1])) if numbers else ()


def _signal_of(job_id: str) -> AskedWarning | None:
    try:
        return warning_of_job(job_id)
    except SlurmError:
        return None  # not all sites keep scripts; the supervisor's place tells enough


def _watch(run: RunPaths, report: DrillReport, at: float, say: Say, seconds: float) -> DrillReport:
    until, asked_at, sure, told = time.monotonic() + seconds, time.monotonic(), 0, ""
    edge: int | None = None
    while True:
        report = _look(run, report, at)
        told = _tell(report, told, say)
        if report.after and edge is None:
            edge = read_facts(run, report.before).end_step
        if report.finished or (edge is not None and _is_past(run, report, edge)):
            return _closed(run, report)
        if time.monotonic() > until:
            what = f"not {'past its step' if report.after else 'running again'} within {seconds:g} s"
            return replace(_closed(run, report), problem=f"{what}; hpcresume watch {shlex.quote(str(run.root))}")
        if time.monotonic() - asked_at >= ASK_EVERY:
            asked_at = time.monotonic()
            row = overview([run.root]).rows[0]
            sure = sure + 1 if row.state.state in ("held", "ended") else 0
            if sure >= SURE_LOOKS:
                return replace(_closed(run, report), problem=f"{row.state.state}: {row.state.doing}")
        time.sleep(LOOK_EVERY)


def _look(run: RunPaths, report: DrillReport, at: float) -> DrillReport:
    """What the files of the two attempts tell now."""
    paths = run.attempt(report.before)
    ledger = [record for record in read_ledger(paths) if record.t >= at - 1.0]
    supervisor = [record for record in read_supervisor(paths) if record.t >= at - 1.0]
    warned, saved = _last(ledger, "warning"), _answer(ledger, at)
    ended = _last(supervisor, "ended") or _last(ledger, "exit")
    cause = _last(supervisor, "cause", "ended")
    after = next((n for n in run.attempt_numbers() if n > report.before), 0)
    seen = replace(
        report,
        after=after,
        warned_after=_since(warned, at),
        warned_step=int(warned.number("step")) if warned is not None else None,
        saved_after=_since(saved, at),
        saved=saved.text("generation") if saved is not None else None,
        saved_step=int(saved.number("step")) if saved is not None else None,
        save_seconds=saved.number("seconds") if saved is not None else None,
        ended_after=_since(ended, at),
        cause=cause.text("cause") or None if cause is not None else None,
        finished=run.done.exists(),
    )
    return _look_after(run, seen, at) if after else seen


def _look_after(run: RunPaths, report: DrillReport, at: float) -> DrillReport:
    ledger = read_ledger(run.attempt(report.after))
    facts = read_facts(run, report.after)
    restored = _last(ledger, "restored")
    metrics = read_metrics(run.attempt(report.after))
    first = next(iter(metrics), None)
    moved = facts.end_step > facts.start_step
    return replace(
        report,
        again_after=max(0.0, facts.began - at) if facts.began is not None else None,
        restored=facts.restored_from,
        restored_step=facts.start_step if restored is not None else None,
        restore_seconds=restored.number("seconds") if restored is not None else None,
        skipped=tuple(each.generation for each in facts.skipped),
        first_step=facts.start_step + 1 if moved else None,
        first_step_after=(first.t - at if first is not None else time.time() - at) if moved and
        report.first_step_after is None else report.first_step_after,
    )  # fmt: skip


def _is_past(run: RunPaths, report: DrillReport, edge: int) -> bool:
    """Has the run gone past where it was, so that every repeated step can be compared?"""
    facts = read_facts(run, report.after)
    return facts.has_begun and facts.end_step > max(edge, facts.start_step)


def _closed(run: RunPaths, report: DrillReport) -> DrillReport:
    """With what only a look back tells: the steps that were lost, and whether the curve is the same."""
    if not report.after:
        return report
    history = {each.attempt: each for each in read_history(run).attempts}
    before = read_metrics(run.attempt(report.before))
    curve = compare_curves(before, read_metrics(run.attempt(report.after)))
    return replace(report, lost=history[report.before].lost_steps, curve=curve)


def _last(records: object, *names: str) -> Record | None:
    assert isinstance(records, list | tuple), "records are listed"
    return next((record for record in reversed(records) if record.event in names), None)


def _answer(ledger: Sequence[Record], at: float) -> Record | None:
    """The last save that the order can have brought about: it began after the order, or after a warning was heard. One
    that was due anyway and ends beside the order says nothing of how quickly a warning is answered.
    """
    answer, heard = None, False
    for record in ledger:
        heard = heard or record.event == "warning"
        if record.event == "saved" and (heard or record.t - record.number("seconds") >= at - CLOCKS_DIFFER):
            answer = record
    return answer


def _since(record: Record | None, at: float) -> float | None:
    return None if record is None else max(0.0, record.t - at)


def _tell(report: DrillReport, told: str, say: Say) -> str:
    """Say what is new, in one line; gives what was said last."""
    if report.first_step is not None:
        words = f"step {report.first_step} is done"
    elif report.restored is not None:
        words = f"attempt {report.after} has restored {report.restored}"
    elif report.after:
        words = f"attempt {report.after} has begun"
    elif report.ended_after is not None:
        words = f"attempt {report.before} has ended ({report.cause or 'no cause yet'}); waiting for Slurm"
    elif report.saved is not None:
        words = f"{report.saved} is committed"
    elif report.warned_after is not None:
        words = f"warned at step {report.warned_step}"
    else:
        words = ""
    if words and words != told:
        say(words)
    return words or told
