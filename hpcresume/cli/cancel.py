"""`hpcresume cancel`: ends the job of a run for good."""

from __future__ import annotations

import shlex

import click

from hpcresume.cli.output import echo_json, json_option, on_terminal, printable

__all__ = ["command"]

EPILOG = """\b
The run itself stays as it is, with all of its generations: hpcresume requeue RUN goes on with it.

\b
Exit codes
   0  cancelled, or there was nothing to cancel (or, with --dry-run, told)
   2  nobody could be asked: --yes is needed where there is no terminal
  69  Slurm refuses or cannot be asked, or the run has no job in Slurm
  73  there is no run
  74  --save: nothing was committed in time; the job was not cancelled
 130  you said no

JSON: run, job_id (null: nothing to cancel), state, saves, orders[arguments[], purpose], done, generation.
"""


@click.command("cancel", epilog=EPILOG)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@click.option("--save", is_flag=True, help="Warn it first, and cancel it when its state is committed.")
@click.option("--wait", default="10min", show_default=True, metavar="TIME", help="How long --save waits.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def command(path: str, save: bool, wait: str, yes: bool, dry_run: bool, as_json: bool) -> int:
    """End the job of RUN for good, waiting or running."""
    import sys

    from hpcresume.config.durations import parse_duration
    from hpcresume.observe.glance import glance
    from hpcresume.ops.cancelling import plan_cancellation

    seconds = parse_duration(wait)
    plan = plan_cancellation(path, save=save)
    say = (lambda _text: None) if as_json else _say
    done = False
    if plan.job_id is None:
        say(f"nothing to cancel: {plan.state}")
    else:
        if save and not plan.saves:
            say("it is not at work, so there is nothing to save first")
        if dry_run:
            for order in plan.orders:
                say(f"would run: {shlex.join(order.arguments)} ({order.purpose})")
        else:
            if not yes and not (on_terminal(sys.stdin) and not as_json):
                raise click.UsageError("nobody can be asked here: --yes cancels without asking")
            if not yes:
                click.confirm(f"The run is {printable(plan.state)}. Cancel job {plan.job_id}?", abort=True)
            plan.carry_out(say, save_seconds=seconds)
            done = True
    if as_json:
        orders = [{"arguments": list(order.arguments), "purpose": order.purpose} for order in plan.orders]
        echo_json({"run": str(path), "job_id": plan.job_id, "state": plan.state, "saves": plan.saves,
                   "orders": orders, "done": done, "generation": glance(plan.run.root).generation})  # fmt: skip
    return 0


def _say(text: str) -> None:
    click.echo(printable(text))
