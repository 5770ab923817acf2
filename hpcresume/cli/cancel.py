"""`hpcresume cancel`: ends the job of a run for good."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

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

Of a chain all stages are cancelled, the last first; RUN/STAGE is one of them, and those behind it then wait for good.

JSON of a chain: run, stages[stage, job_id, state, saves, done].

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
    from hpcresume.ops.chain_record import stages_at

    seconds = parse_duration(wait)
    say = (lambda _text: None) if as_json else _say
    stages = stages_at(path)
    if stages:
        return _chain(path, stages, save=save, seconds=seconds, yes=yes, dry_run=dry_run, as_json=as_json)
    plan = plan_cancellation(path, save=save)
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


def _chain(
    path: str, stages: list[Path], *, save: bool, seconds: float, yes: bool, dry_run: bool, as_json: bool
) -> int:
    """All stages, the last first: none of them may begin because one before it is gone."""
    import sys

    from hpcresume.ops.cancelling import plan_cancellation

    plans = [plan_cancellation(each, save=save) for each in reversed(stages)]
    going = [plan for plan in plans if plan.job_id is not None]
    if going and not dry_run and not yes:
        if as_json or not on_terminal(sys.stdin):
            raise click.UsageError("nobody can be asked here: --yes cancels without asking")
        named = ", ".join(f"{plan.run.root.name} (job {plan.job_id}, {plan.state})" for plan in going)
        click.confirm(f"Cancel {printable(named)}?", abort=True)
    told = []
    for plan in plans:
        name = plan.run.root.name
        say = _silent if as_json else _teller(name)
        if plan.job_id is None:
            say(f"nothing to cancel: {plan.state}")
        for order in plan.orders if dry_run else ():
            say(f"would run: {shlex.join(order.arguments)} ({order.purpose})")
        if plan.job_id is not None and not dry_run:
            plan.carry_out(say, save_seconds=seconds)
        told.append({"stage": name, "job_id": plan.job_id, "state": plan.state, "saves": plan.saves,
                     "done": plan.job_id is not None and not dry_run})  # fmt: skip
    if as_json:
        echo_json({"run": path, "stages": told})
    return 0


def _teller(name: str) -> Callable[[str], None]:
    return lambda text: _say(f"{name}: {text}")


def _silent(_text: str) -> None:
    """JSON says it at the end."""


def _say(text: str) -> None:
    click.echo(printable(text))
