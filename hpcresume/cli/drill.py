"""`hpcresume drill`: interrupts a running job of yours for real, and reports what was lost."""

from __future__ import annotations

import shlex

import click

from hpcresume.cli.output import echo_json, json_option, on_terminal, printable

__all__ = ["command"]

EPILOG = """\b
Exit codes
   0  the run goes on, and nothing was lost (or, with --dry-run, told)
   1  the run goes on, and steps were lost, a generation was damaged, or a repeated step came out different
   2  nobody could be asked: --yes is needed where there is no terminal
   3  the run goes on, and nothing was lost this time; a real preemption or time limit would leave too little time to
      save, or just enough (the rows grace, KillWait, lead)
  69  Slurm cannot be asked or refuses, the job is not yours, or would not come back
  73  there is no run, or it is not at work
  77  it did not come back in time, or is held: hpcresume why RUN
 130  you said no, or Ctrl-C; the run goes on by itself

JSON: order, warned, before, after (attempts), step, warned_after, warned_step, saved_after, saved, saved_step,
save_seconds, ended_after, cause, again_after, restored, restored_step, restore_seconds, skipped[], first_step_after,
first_step, lost, repeated_steps_compared, different_steps[], finished, problem, judged[against (grace, KillWait,
lead), given, used, verdict (ok, warn, bad, unknown), what, try], verdict (nothing lost, too tight, lost, not back).
Times are seconds since the order; what is not known is null. --dry-run: run, job_id, order, purpose.
"""


@click.command("drill", epilog=EPILOG)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@click.option("--signal", "signal_name", metavar="NAME", help="Warn by this one. Default: as the job's own --signal.")
@click.option("--requeue", "how", flag_value="requeue", help="scontrol requeue: the end without a warning.")
@click.option("--node", "how", flag_value="node", help="Kill the ranks of one node, as if it were lost.")
@click.option("--timeout", default="15min", show_default=True, metavar="TIME", help="How long to wait for the run.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def command(path: str, signal_name: str | None, how: str | None, timeout: str, yes: bool, dry_run: bool,
            as_json: bool) -> int:  # fmt: skip
    """Preempt the running job of RUN for real, and watch it come back.

    The job is warned as Slurm would warn it (scancel --signal, as its own --signal asks); it saves, stops, goes back
    into the queue and starts again. --requeue and --node end it without a warning: what was not saved is lost.
    """
    import sys

    from hpcresume.config.durations import parse_duration
    from hpcresume.ops.drill import plan_drill
    from hpcresume.ops.drill_report import as_json as json_of
    from hpcresume.ops.drill_report import sentences
    from hpcresume.ops.targets import typed

    if how is not None and signal_name is not None:
        raise click.UsageError(f"--{how} sends no signal of yours: one of the two")
    seconds = parse_duration(timeout)
    name = None if signal_name is None else signal_name.upper().removeprefix("SIG")
    drill = plan_drill(path, how=how or "warn", signal_name=name)
    words = shlex.join(drill.order.arguments)
    if dry_run:
        if as_json:
            echo_json({"run": str(drill.run.root), "job_id": drill.job_id, "order": words,
                       "purpose": drill.order.purpose})  # fmt: skip
        else:
            click.echo(printable(f"would run: {words} ({drill.order.purpose})"))
        return 0
    if not yes and not (on_terminal(sys.stdin) and not as_json):
        raise click.UsageError("nobody can be asked here: --yes drills without asking")
    if not yes:
        loss = "" if drill.warned else "; what was not saved is lost"
        click.confirm(printable(f"Interrupt job {drill.job_id}, which is at step {drill.step}, by {words}{loss}?"),
                      abort=True)  # fmt: skip
    with typed(drill.run):
        report = drill.carry_out(_silent if as_json else _say, seconds)
    if as_json:
        echo_json(json_of(report))
        return report.exit_code
    rows = sentences(report)
    width = max(len(title) for title, _ in rows)
    click.echo()
    for title, text in rows:
        click.echo(f"{title:<{width}}  {printable(text)}")
    click.echo(report.verdict.upper())
    return report.exit_code


def _say(text: str) -> None:
    click.echo(printable(text), err=True)


def _silent(_text: str) -> None:
    """Say nothing: one JSON object is all that is printed."""
