"""Submits a job: preflight, one submission at a time and one job a run, sbatch or submitit, and what to watch."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hpcresume.config.job_spec import JobSpec
from hpcresume.errors import ConfigError, RunBusyError
from hpcresume.slurm.submission import sbatch
from hpcresume.submit.preflight import Check, preflight
from hpcresume.submit.record import Folder, live_job
from hpcresume.submit.script import render

__all__ = ["Plan", "Submitted", "plan_submission", "submit_plan"]


@dataclass(frozen=True)
class Plan:
    """A submission that has not happened: the script, and what the preflight found."""

    spec: JobSpec
    script: str
    checks: tuple[Check, ...]
    options: tuple[str, ...] = ()

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
        log: the file that its output goes to; None when submitit keeps the logs.
        watch: commands that show how it goes.
    """

    job_id: str
    run: str
    log: str | None
    watch: tuple[str, ...]


def plan_submission(spec: JobSpec, options: Sequence[str] = ()) -> Plan:
    """Render the script and look at everything that can be looked at; changes nothing.

    Raises:
        ConfigError: a value cannot stand in a script, or a further option has no place.
    """
    if spec.function is not None and options:
        raise ConfigError("further options are for sbatch; a function goes through submitit", where=options[0])
    for option in options:
        if not option.startswith("-"):
            hint = "options only; the script is made from the job"
            raise ConfigError(f"{option!r} is no option of sbatch", where="after --", hint=hint)
    script = render(spec, heading="Made and submitted by `hpcresume submit`.")
    return Plan(spec, script, tuple(preflight(spec, script)), tuple(options))


def submit_plan(
    plan: Plan,
    *,
    again: bool = False,
    submit: Callable[[Path, Sequence[str]], str] = sbatch,
    submit_function: Callable[[JobSpec], str],
    live: Callable[[Path], str | None] = live_job,
) -> Submitted:
    """Submit it.

    Args:
        plan: what `plan_submission` made.
        again: also when a job of this run is in the queue or at work.
        submit: gives a script to Slurm.
        submit_function: gives a job that names a function to Slurm: what makes a function resumable knows sessions
            and supervisors, which are none of this layer's affair.
        live: says who is at work on a run.

    Raises:
        ConfigError: the preflight found something.
        RunBusyError: a job of this run is in the queue or at work, or is being submitted at this moment.
        RunDirectoryError: the run directory cannot be made.
        SlurmError: Slurm is missing, refuses or hangs.
    """
    _refuse(plan)
    run = Path(plan.spec.run_directory).absolute()
    folder = Folder.of_run(run)
    with folder.locked():
        busy = None if again else live(run)
        if busy is not None:
            hint = "wait for it, scancel it, or --again to queue another one behind it"
            raise RunBusyError(f"this run has a job already: {busy}", where=str(run), hint=hint)
        folder.write_script(plan.script)
        job_id = submit_function(plan.spec) if plan.spec.function else submit(folder.script, plan.options)
        folder.write_job(job_id, {"spec": msgspec.to_builtins(plan.spec), "options": list(plan.options)})
    return _submitted(plan.spec, job_id)


def _refuse(plan: Plan) -> None:
    failed = plan.failed
    if len(failed) == 1:
        raise ConfigError(failed[0].detail, where=f"preflight: {failed[0].name}", hint=failed[0].hint)
    if failed:
        lines = "".join(f"\n  {each.name}: {each.detail} (try: {each.hint})" for each in failed)
        raise ConfigError(f"{len(failed)} things speak against it{lines}", where="preflight")


def _submitted(spec: JobSpec, job_id: str) -> Submitted:
    log = None if spec.function is not None else _log(spec, job_id)
    watch = [f"squeue --jobs={job_id}"]
    if log is not None and "%" not in log:
        watch.append(f"tail -F {shlex.quote(log)}")
    return Submitted(job_id, spec.run_directory, log, tuple(watch))


def _log(spec: JobSpec, job_id: str) -> str:
    """The log's name with what is known of sbatch's %-patterns (sbatch(1), FILENAME PATTERN)."""
    pattern = spec.log or ("slurm-%A_%a.out" if spec.resources.array is not None else "slurm-%j.out")
    known = {"%A": job_id, "%x": spec.name, "%%": "%"}
    if spec.resources.array is None:
        known["%j"] = job_id
    if "%u" in pattern:
        known["%u"] = getpass.getuser()
    return re.sub(r"%[A-Za-z%]", lambda match: known.get(match[0], match[0]), pattern)
