"""`hpcresume requeue`: starts a run again that was held or has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import echo_json, json_option, printable

if TYPE_CHECKING:
    from hpcresume.config.job_spec import JobSpec
    from hpcresume.ops.chain_record import Chain

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

Of a chain what is held is released, and the stages that are not done and have no job are submitted again, each behind
those before it; RUN/STAGE is one of them alone. JSON then: run, stages[stage, kind (done, running, waiting, held,
left, submit, release, point), job_id, after[], log], notes[].

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

    found = _chain_and_stages(path)
    if found is not None and not reopen:
        return _chain(found[0], found[1], path, dry_run=dry_run, as_json=as_json)
    if found is not None and not found[1]:
        raise click.UsageError("--reopen is for one run: name the stage, RUN/STAGE")
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


def _chain_and_stages(path: str) -> tuple[Chain, tuple[str, ...]] | None:
    """The chain that a path means: as a whole (no names), or one stage of it."""
    from pathlib import Path

    from hpcresume.io.paths import RunPaths
    from hpcresume.ops.chain_record import chain_of_stage, read_chain
    from hpcresume.ops.targets import typed

    root = Path(path)
    with typed(RunPaths(root)):
        chain = read_chain(root)
        if chain is not None:
            return chain, ()
        of = chain_of_stage(root) if root.is_dir() else None
    return (of, (root.absolute().name,)) if of is not None else None


def _chain(chain: Chain, only: tuple[str, ...], path: str, *, dry_run: bool, as_json: bool) -> int:
    """What is held is released, what is not done and has no job is submitted again, in the chain's own folder."""
    from hpcresume.cli.chain_view import say_notes, show_done, show_plan
    from hpcresume.errors import RunDirectoryError
    from hpcresume.ops.chains import carry_out, plan_steps
    from hpcresume.ops.requeueing import inside
    from hpcresume.submit.stages import plan_chain

    if chain.directory is None:
        what = "where it was submitted from was not recorded"
        raise RunDirectoryError(what, where=str(chain.root), hint="hpcresume submit job.yaml in that folder")
    root = chain.root.absolute()
    with inside(chain.directory):
        plan = plan_chain(root, chain.stages, chain.options)
        steps = plan_steps(plan, let_go=True, only=only)
        if dry_run:
            show_plan(plan, steps, as_json=as_json)
            return 0
        if not as_json:
            say_notes(plan, steps)
        show_done(plan, carry_out(plan, let_go=True, only=only), path, as_json=as_json)
    return 0


def _submit_function(spec: JobSpec) -> str:
    from hpcresume.integrations.submitit import submit

    return str(submit(spec, cluster="slurm", again=True).job_id)  # who is at work was looked at before
