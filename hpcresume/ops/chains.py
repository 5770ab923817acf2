"""Brings a chain of stages into the queue: what is done stays, what is at work goes on, the rest is submitted in order.

The same for the first submission, for one after a failure, and for `hpcresume requeue`, which also releases what is
held. Each job waits for those of the stages before it, and a waiting one is given new ones where those were replaced.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpcresume.errors import ConfigError, HpcresumeError, RunDirectoryError
from hpcresume.io.durable import make_directory
from hpcresume.io.paths import RunPaths
from hpcresume.ops import by_hand
from hpcresume.ops.chain_record import read_chain
from hpcresume.ops.overview import Row, overview
from hpcresume.slurm.changes import Change, change_job
from hpcresume.slurm.dependents import after_all
from hpcresume.slurm.orders import give, release
from hpcresume.slurm.submission import sbatch
from hpcresume.submit.check import Check
from hpcresume.submit.record import AtWork, Folder
from hpcresume.submit.stages import ChainPlan, StagePlan, written_stages
from hpcresume.submit.submission import submit_plan

__all__ = ["ChainDone", "Step", "carry_out", "failed_checks", "plan_steps"]

NEVER = "DependencyNeverSatisfied"


@dataclass(frozen=True)
class Step:
    """What is to be done about a stage, or was.

    Attributes:
        stage: its name.
        kind: left alone: "done", "running", "waiting", "held", "left" (not asked for); changed: "submit", "release",
            "point" (given other jobs to wait for).
        job_id: its job, None when there is none (yet).
        after: the stages that it waits for and that are not done.
        log: the file of a job that was submitted.
    """

    stage: str
    kind: str
    job_id: str | None = None
    after: tuple[str, ...] = ()
    log: str | None = None

    @property
    def changes(self) -> bool:
        """Is anything done?"""
        return self.kind in ("submit", "release", "point")


@dataclass(frozen=True)
class ChainDone:
    """What was done about each stage, and what is to be said about it."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def plan_steps(plan: ChainPlan, *, let_go: bool = False, only: Sequence[str] = ()) -> tuple[Step, ...]:
    """What has to be done about each stage; Slurm is asked once.

    Args:
        plan: the chain.
        let_go: release what is held in the queue, too.
        only: submit these stages alone. Default: all that are not done.

    Raises:
        RunDirectoryError: the run of a stage cannot be read.
        SlurmError: Slurm cannot be asked.
    """
    runs = [plan.run / each.stage.name for each in plan.stages]
    here = [run for run in runs if run.is_dir()]
    found = overview(here, finished=False) if here else None
    if found is not None and found.slurm_error is not None:
        raise found.slurm_error
    rows = {row.seen.root: row for row in found.rows} if found is not None else {}
    steps: list[Step] = []
    for each, run in zip(plan.stages, runs, strict=True):
        not_done = tuple(s.stage for s in steps if s.stage in each.stage.after and s.kind != "done")
        fresh = {s.stage for s in steps if s.kind == "submit"}
        wanted = not only or each.stage.name in only
        step = _step(each.stage.name, rows.get(run), not_done, fresh, let_go=let_go and wanted)
        steps.append(step if wanted or step.kind != "submit" else replace(step, kind="left"))
    return tuple(steps)


def _step(name: str, row: Row | None, not_done: tuple[str, ...], fresh: set[str], *, let_go: bool) -> Step:
    if row is None:
        return Step(name, "submit", after=not_done)
    if row.seen.problem:
        raise RunDirectoryError(row.seen.problem, where=str(row.seen.root), hint="look at the directory")
    if row.seen.done:
        return Step(name, "done", row.job_id)
    job = row.job
    if job is not None and job.waiting:
        if job.held:
            return Step(name, "release" if let_go else "held", job.id, not_done)
        point = job.reason == NEVER or bool(fresh & set(not_done))
        return Step(name, "point" if point else "waiting", job.id, not_done)
    if (job is not None and job.active) or row.state.state == "running":
        return Step(name, "running", row.job_id, not_done)
    return Step(name, "submit", after=not_done)


def failed_checks(plan: ChainPlan, steps: Sequence[Step]) -> list[tuple[str, Check]]:
    """What speaks against the stages that would be submitted: the stage, and what was found."""
    going = {step.stage for step in steps if step.kind == "submit"}
    return [(each.stage.name, check) for each in plan.stages if each.stage.name in going for check in each.plan.failed]


def _refuse(plan: ChainPlan, steps: Sequence[Step]) -> None:
    failed = failed_checks(plan, steps)
    if len(failed) == 1:
        name, check = failed[0]
        raise ConfigError(check.detail, where=f"preflight: stage {name}: {check.name}", hint=check.hint)
    if failed:
        lines = "".join(f"\n  {name}: {c.name}: {c.detail} (try: {c.hint})" for name, c in failed)
        raise ConfigError(f"{len(failed)} things speak against it{lines}", where="preflight")


def carry_out(
    plan: ChainPlan, *, let_go: bool = False, only: Sequence[str] = (),
    submit: Callable[[Path, Sequence[str]], str] = sbatch,
) -> ChainDone:  # fmt: skip
    """Do it, one submission of a chain at a time.

    Raises:
        ConfigError: the preflight found something.
        RunBusyError: it is being submitted at this moment.
        RunDirectoryError: a folder cannot be made or written to.
        SlurmError: Slurm is missing, refuses or hangs. What was submitted before stays, and is found the next time.
    """
    folder = Folder.of_run(plan.run)
    with folder.locked() as held:
        steps = plan_steps(plan, let_go=let_go, only=only)
        _refuse(plan, steps)
        notes = (
            [] if held else [f"{folder.root}: no locks there; two submissions at one moment would not see each other"]
        )
        notes += _left_over(plan)
        _keep(plan, folder)
        jobs = {step.stage: step.job_id for step in steps if step.job_id is not None and step.kind != "done"}
        done: list[Step] = []
        for each, step in zip(plan.stages, steps, strict=True):
            try:
                done.append(_do(each, step, jobs, submit, notes))
            except HpcresumeError as error:
                raise _halfway(error, each.stage.name, done) from error
            if let_go and done[-1].changes:  # a person's doing after the first submission, for whoever looks at night
                by_hand.note(RunPaths(plan.run / each.stage.name), "requeue", job_id=done[-1].job_id, how=done[-1].kind)
    return ChainDone(tuple(done), tuple(notes))


def _left_over(plan: ChainPlan) -> list[str]:
    """Stages of the last submission that are not among these, and may still have a job."""
    try:
        before = read_chain(plan.run)
    except (OSError, RunDirectoryError):
        return []  # it is about to be written anew
    names = {each.stage.name for each in plan.stages}
    gone = [] if before is None else before.not_done(each.name for each in before.stages if each.name not in names)
    return [f"the stage {name} is no longer in the file; should its job still wait: hpcresume cancel "
            f"{shlex.quote(str(plan.run / name))}" for name in gone]  # fmt: skip


def _keep(plan: ChainPlan, folder: Folder) -> None:
    try:
        for each in plan.stages:
            make_directory(plan.run / each.stage.name)
        folder.write_chain({**written_stages(plan), "directory": os.getcwd()})
    except OSError as error:
        what = f"the stages cannot be written down: {error.strerror}"
        raise RunDirectoryError(what, where=str(error.filename or folder.chain)) from error


def _do(
    each: StagePlan, step: Step, jobs: dict[str, str], submit: Callable[[Path, Sequence[str]], str],
    notes: list[str],
) -> Step:  # fmt: skip
    """One step; the number of a new job goes into `jobs`."""
    if step.kind == "submit":
        sent = submit_plan(each.behind(jobs), submit=submit, submit_function=_no_function, work=lambda _: AtWork())
        notes += sent.notes
        jobs[step.stage] = sent.job_id
        return replace(step, job_id=sent.job_id, log=sent.log)
    job_id = step.job_id
    if step.kind in ("release", "point") and job_id is not None:
        waits = [jobs[name] for name in step.after if name in jobs]
        if waits:
            refused = change_job(job_id, [Change("Dependency", after_all(waits), "the stages before it")], timeout=30.0)
            notes += [f"job {job_id} cannot be made to wait for {', '.join(waits)}: {words}" for _, words in refused]
        elif step.kind == "point":
            missing = ", ".join(step.after)
            notes.append(
                f"{step.stage} waits in vain: {missing} is not done and has no job; try: hpcresume requeue RUN"
            )
        if step.kind == "release":
            give(release(job_id))
    return step


def _no_function(_spec: object) -> str:
    raise AssertionError("a stage is a command")


def _halfway(error: HpcresumeError, name: str, done: Sequence[Step]) -> HpcresumeError:
    """The same error, with what is in the queue already."""
    there = [f"{step.stage} (job {step.job_id})" for step in done if step.kind == "submit"]
    what = f"stage {name}: {error.what}"
    if there:
        what += f"; submitted before: {', '.join(there)}"
    return type(error)(what, where=error.where, hint=error.hint)
