"""Submits a job: preflight, one submission at a time and one job a run, sbatch or submitit, and what to watch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import long_option
from hpcresume.errors import ConfigError, RunBusyError, RunDirectoryError, SlurmError
from hpcresume.io.hints import hint_for
from hpcresume.io.users import user_name
from hpcresume.slurm.filenames import file_name
from hpcresume.slurm.resubmit import cluster_requeues
from hpcresume.slurm.sibling_list import GUARD, Sibling, guard_words, note_waiting, told_behind
from hpcresume.slurm.submission import sbatch
from hpcresume.submit.check import Check
from hpcresume.submit.overriding import checked_options, exported
from hpcresume.submit.preflight import preflight
from hpcresume.submit.record import AtWork, Folder, at_work
from hpcresume.submit.script import render

__all__ = ["Plan", "Submitted", "plan_submission", "submit_plan"]

_OF_THE_FIRST = frozenset({"hold", "begin", "dependency", "export"})
"""Options of sbatch that are about when the job itself starts, or are said anew for its guard."""


@dataclass(frozen=True)
class Plan:
    """A submission that has not happened: the script, what the preflight found, and what else is to be recorded."""

    spec: JobSpec
    script: str
    checks: tuple[Check, ...]
    options: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that speak against it."""
        return tuple(check for check in self.checks if check.outcome == "failed")


@dataclass(frozen=True)
class Submitted:
    """A job in the queue.

    Attributes:
        job_id: its number.
        run: its run directory; for an array the stem to which `-TASK` is added.
        log: the file that its output goes to; of a function the one of its first rank.
        watch: commands that show how it goes.
        notes: what could not be looked at or written down, for people.
    """

    job_id: str
    run: str
    log: str
    watch: tuple[str, ...]
    notes: tuple[str, ...] = ()


def plan_submission(spec: JobSpec, options: Sequence[str] = ()) -> Plan:
    """Render the script and look at everything that can be looked at; changes nothing.

    Raises:
        ConfigError: a value cannot stand in a script, or a further option has no place.
    """
    if spec.function is not None and options:
        raise ConfigError("further options are for sbatch; a function goes through submitit", where=options[0])
    checked = checked_options(options)
    script = render(spec, heading="Made and submitted by `hpcresume submit`.")
    return Plan(spec, script, tuple(preflight(spec, script, options=checked)), checked)


def submit_plan(
    plan: Plan,
    *,
    again: bool = False,
    submit: Callable[[Path, Sequence[str]], str] = sbatch,
    submit_function: Callable[[JobSpec], str],
    work: Callable[[Path], AtWork] = at_work,
    requeues: Callable[[], bool | None] = cluster_requeues,
) -> Submitted:
    """Submit it.

    Args:
        plan: what `plan_submission` made.
        again: also when a job of this run is in the queue or at work.
        submit: gives a script to Slurm.
        submit_function: gives a job that names a function to Slurm: what makes a function resumable knows sessions
            and supervisors, which are none of this layer's affair.
        work: says who is at work on a run.
        requeues: says whether the cluster requeues jobs, None when it cannot be asked.

    Raises:
        ConfigError: the preflight found something.
        RunBusyError: a job of this run is in the queue or at work, or is being submitted at this moment.
        RunDirectoryError: the run directory cannot be made or written to.
        SlurmError: Slurm is missing, refuses or hangs.
    """
    _refuse(plan)
    run = Path(plan.spec.run_directory).absolute()
    folder = Folder.of_run(run)
    notes: list[str] = []
    with folder.locked() as held:
        if not held:
            notes.append(f"{folder.root}: no locks there; two submissions at one moment would not see each other")
        found = AtWork() if again else work(run)
        if found.who is not None:
            hint = "wait for it, scancel it, or --again to queue another one behind it"
            raise RunBusyError(f"this run has a job already: {found.who}", where=str(run), hint=hint)
        notes += [f"job {each} of this run may be at work: Slurm does not say" for each in found.unknown]
        _keep_script(folder, plan.script)
        job_id = submit_function(plan.spec) if plan.spec.function else submit(folder.script, plan.options)
        notes += _keep_number(folder, plan, job_id)
        notes += _leave_guard(folder, plan, job_id, submit, requeues)
    return _submitted(plan.spec, job_id, tuple(notes))


def _keep_script(folder: Folder, script: str) -> None:
    try:
        folder.write_script(script)
    except OSError as error:
        what = f"the script cannot be kept: {error.strerror}"
        raise RunDirectoryError(what, where=str(folder.script), hint=hint_for(error.errno)) from error


def _keep_number(folder: Folder, plan: Plan, job_id: str) -> list[str]:
    """The job is in the queue now: whatever happens here, its number must come out."""
    facts = {"spec": msgspec.to_builtins(plan.spec), "options": list(plan.options), "directory": os.getcwd(),
             **plan.facts}  # fmt: skip
    try:
        folder.write_job(job_id, facts)
    except OSError as error:
        reason = error.strerror or str(error)
        return [f"{folder.job} cannot be written ({reason}): the next submission will not see job {job_id}"]
    return []


def _leave_guard(
    folder: Folder, plan: Plan, job_id: str, submit: Callable[[Path, Sequence[str]], str],
    requeues: Callable[[], bool | None],
) -> list[str]:  # fmt: skip
    """A guard behind the job before its first script runs, where one is wished for or Slurm requeues nothing.

    Nobody else could leave one then. The tasks of an array, and functions, get theirs, if any, from those who run them.
    """
    spec = plan.spec
    if spec.requeue.guard is False or spec.resources.array is not None or spec.function is not None:
        return []
    if spec.requeue.guard is None and not (spec.requeue.enabled and requeues() is False):
        return []
    why = "requeue.guard" if spec.requeue.guard else "this cluster requeues no job; requeue.guard: false for none"
    told = told_behind(exported(plan.spec, plan.options, os.environ), GUARD, job_id)
    options = [word for word in plan.options if long_option(word).removeprefix("--") not in _OF_THE_FIRST]
    try:
        guard = submit(folder.script, [*options, *guard_words(job_id), told])
    except SlurmError as error:
        return [f"no guard stands behind job {job_id}: {error.what}"]
    note_waiting(folder.root.parent, Sibling(guard, GUARD, job_id))
    return [f"job {guard} stands behind it ({why}), and is gone when it is done"]


def _refuse(plan: Plan) -> None:
    failed = plan.failed
    if len(failed) == 1:
        raise ConfigError(failed[0].detail, where=f"preflight: {failed[0].name}", hint=failed[0].hint)
    if failed:
        lines = "".join(f"\n  {each.name}: {each.detail} (try: {each.hint})" for each in failed)
        raise ConfigError(f"{len(failed)} things speak against it{lines}", where="preflight")


def _submitted(spec: JobSpec, job_id: str, notes: tuple[str, ...]) -> Submitted:
    log = _log(spec, job_id)
    verb = "watch" if spec.resources.array is None else "status"  # an array is as many runs as tasks
    watch = [f"hpcresume {verb} {shlex.quote(spec.run_directory)}", f"squeue --jobs={job_id}"]
    if spec.function is not None:  # submitit has a file for each kind of output
        watch.append(f"tail -F {shlex.join([log, log.removesuffix('out') + 'err'])}")
    elif "%" not in log:
        watch.append(f"tail -F {shlex.quote(log)}")
    return Submitted(job_id, spec.run_directory, log, tuple(watch), notes)


def _log(spec: JobSpec, job_id: str) -> str:
    """The log's name with what is known of sbatch's %-patterns (sbatch(1), FILENAME PATTERN)."""
    if spec.function is not None:
        return f"{spec.run_directory}/submitit/{job_id}_0_log.out"
    pattern = spec.log or ("slurm-%A_%a.out" if spec.resources.array is not None else "slurm-%j.out")
    known = {"A": job_id, "x": spec.name, "u": user_name()}
    if spec.resources.array is None:
        known["j"] = job_id
    return file_name(pattern, known)
