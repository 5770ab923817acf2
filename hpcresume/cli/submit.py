"""`hpcresume submit`: options and lines; the work is in `hpcresume.submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcresume.cli.job_options import job_options, load
from hpcresume.cli.output import Column, echo_json, echo_table, json_option, printable

if TYPE_CHECKING:
    from hpcresume.config.job import LoadedJob
    from hpcresume.config.job_spec import JobSpec
    from hpcresume.submit.submission import Plan

__all__ = ["command"]

EPILOG = """\b
Before anything is submitted: the run directory, the log's folder, the program, the environment, the image and
the script are looked at, and the partition's limits where Slurm answers. What cannot be looked at is skipped
and said. RUN/submit/ keeps the script and the job's number. Options after the -- go to sbatch; those that would
undo the script, or that have a key of their own, are refused.

\b
Of a file with stages those that are not done are submitted together, each to begin when those before it are
done; what is in the queue or at work is left alone. Submitting again after a failure is the same command.

\b
Exit codes
   0  submitted (or, with --dry-run, nothing speaks against it)
  69  sbatch is missing, refuses or hangs
  73  the run has a job already, or its directory cannot be used
  78  something in the job file or in the preflight is wrong
"""


@click.command("submit", epilog=EPILOG)
@job_options
@click.option("--again", is_flag=True, help="Submit although a job of this run is in the queue or at work.")
@click.option("--dry-run", is_flag=True, help="Show the script and the preflight, and submit nothing.")
@json_option
@click.argument("options", nargs=-1, metavar="[-- SBATCH_OPTION...]", type=click.UNPROCESSED)
def command(
    path: Path, sets: tuple[str, ...], again: bool, dry_run: bool, as_json: bool, options: tuple[str, ...]
) -> int:
    """Submit JOB_YAML (default: job.yaml): by sbatch, or by submitit when it names a function.

    Relative paths begin in the folder where you are, as with sbatch. Refused while a job of the same run is in
    the queue or at work.
    """
    from dataclasses import asdict

    from hpcresume.submit.submission import plan_submission, submit_plan

    if str(path).startswith("-"):  # `submit -- --hold`: no file was named
        path, options = Path("job.yaml"), (str(path), *options)
    job = load(path, sets)
    if job.stages:
        return _chain(job, options, again=again, dry_run=dry_run, as_json=as_json)
    plan = plan_submission(job.spec, options)
    if dry_run:
        return _show(plan, as_json)
    _say_noted(plan)
    done = submit_plan(plan, again=again, submit_function=_submit_function)
    for note in done.notes:
        click.echo(f"note: {printable(note)}", err=True)
    if as_json:
        echo_json({**asdict(done), "checks": [asdict(check) for check in plan.checks]})
        return 0
    click.echo(f"job {done.job_id}  run {printable(done.run)}")
    click.echo(f"log  {printable(done.log)}")
    for line in done.watch:
        click.echo(f"watch it:  {printable(line)}")
    return 0


def _chain(job: LoadedJob, options: tuple[str, ...], *, again: bool, dry_run: bool, as_json: bool) -> int:
    """All stages that are not done, each behind those that it waits for."""
    from hpcresume.cli.chain_view import say_notes, show_done, show_plan
    from hpcresume.ops.chains import carry_out, failed_checks, plan_steps
    from hpcresume.submit.stages import plan_chain

    if again:
        raise click.UsageError("--again is for one job; of stages, those that are not done are submitted anyway")
    plan = plan_chain(Path(job.spec.run_directory), job.stages, options)
    steps = plan_steps(plan)
    if dry_run:
        show_plan(plan, steps, as_json=as_json)
        return 78 if failed_checks(plan, steps) else 0
    say_notes(plan, steps)
    show_done(plan, carry_out(plan), job.spec.run_directory, as_json=as_json)
    return 0


def _show(plan: Plan, as_json: bool) -> int:
    from dataclasses import asdict

    if as_json:
        echo_json({"script": plan.script, "checks": [asdict(check) for check in plan.checks]})
    else:
        click.echo(plan.script, nl=False)
        click.echo()
        columns = [Column("PREFLIGHT"), Column("OUTCOME"), Column("FOUND", fold=True)]
        wanting = ("failed", "noted")
        hints = [f" (try: {check.hint})" if check.outcome in wanting else "" for check in plan.checks]
        rows = zip(plan.checks, hints, strict=True)
        echo_table(columns, [[check.name, check.outcome, check.detail + hint] for check, hint in rows])
    return 78 if plan.failed else 0


def _say_noted(plan: Plan) -> None:
    for check in plan.checks:
        if check.outcome == "skipped":
            click.echo(f"not checked: {check.name}: {printable(check.detail)}", err=True)
        elif check.outcome == "noted":
            click.echo(f"note: {printable(check.detail)} (try: {printable(check.hint)})", err=True)


def _submit_function(spec: JobSpec) -> str:
    from hpcresume.integrations.submitit import submit

    return str(submit(spec, cluster="slurm", again=True).job_id)  # who is at work was looked at before
