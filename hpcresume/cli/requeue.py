"""`hpcresume requeue`: starts a run again that was held or has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import echo_json, json_option, printable

if TYPE_CHECKING:
    from hpcresume.config.job_spec import JobSpec

__all__ = ["command"]

EPILOG = """\b
A job that is held in the queue is released. One that is over and that Slurm still knows is requeued: same number,
same script, same environment. Else what `hpcresume submit` submitted is submitted again, from the same folder, with
the environment of this shell. A hold by the run's own budgets is lifted, and their count begins anew.

\b
Exit codes
   0  it starts again, or will by itself (or, with --dry-run, told)
  69  Slurm refuses or cannot be asked
  73  there is no run; it is at work, or finished and --reopen is missing; nothing tells how it was submitted

JSON: run, kind (release, requeue, submit, nothing), job_id, state, steps[], done.
"""


@click.command("requeue", epilog=EPILOG)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@click.option("--reopen", is_flag=True, help="Also a finished run: its DONE is removed.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def command(path: str, reopen: bool, dry_run: bool, as_json: bool) -> int:
    """Start RUN again from its newest generation, after it was held or has ended."""
    from hpcresume.ops.requeueing import plan_restart

    plan = plan_restart(path, reopen_done=reopen)
    job_id = plan.job_id if dry_run else plan.carry_out(_submit_function)
    if as_json:
        echo_json({"run": str(path), "kind": plan.kind, "job_id": job_id, "state": plan.state, "steps": plan.steps,
                   "done": not dry_run})  # fmt: skip
        return 0
    if plan.kind == "nothing":
        click.echo(printable(f"nothing to do: {plan.state}"))
    elif dry_run:
        for step in plan.steps:
            click.echo(printable(f"would: {step}"))
    else:
        click.echo(printable(f"job {job_id} starts again ({plan.kind}); it was {plan.state}"))
        click.echo(printable(f"watch it:  hpcresume watch {path}"))
    return 0


def _submit_function(spec: JobSpec) -> str:
    from hpcresume.integrations.submitit import submit

    return str(submit(spec, cluster="slurm").job_id)
