"""`hpcresume status`: what runs are doing, one row a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcresume.cli.errors import complain
from hpcresume.cli.output import Column, echo_json, echo_table, json_option
from hpcresume.observe.figures import age

if TYPE_CHECKING:
    from hpcresume.ops.overview import Overview, Row

__all__ = ["command"]

EPILOG = """\b
States
  running     the job has nodes (without Slurm: the process lives)
  pending     in the queue for the first time
  requeued    in the queue again, by itself
  held        waits for somebody: its own budgets, or a hold in the queue
  ended       over without being finished, and nobody brings it back
  done        finished
  idle        saved by hr.save alone, outside of any session
  new         nothing was submitted or started
  unknown     Slurm would have to say, and cannot be asked
  unreadable  its files cannot be read

\b
Exit codes
   0  answered, whatever the states
  69  Slurm could not be asked; what the files tell is shown all the same
  73  there is no run
  74  --verify: a newest generation does not verify
  77  --check: a run is held, ended, unknown or unreadable

JSON: slurm_error, runs[run, state, doing, next, attempt, step, total_steps, generation, generation_step,
committed_at, generations, waits_for[], made_from[stage, run, attempt, step, generation], verified, lost_steps,
warning_lead, cause, decision, job_id, job_state, job_reason, job_start, job_end, nodes]; times are seconds since the
epoch, what is not known is null.
"""


@click.command("status", epilog=EPILOG)
@click.argument("paths", nargs=-1, type=click.Path(readable=False), metavar="[RUN]...")
@click.option("--verify", is_flag=True, help="Read every byte of each run's newest generation, too.")
@click.option("--check", is_flag=True, help="Exit 77 when a run needs somebody: for cron and monitoring.")
@json_option
def command(paths: tuple[str, ...], verify: bool, check: bool, as_json: bool) -> int:
    """Tell what runs are doing and what happens next.

    RUN is a run's directory, or a folder with runs in it (also one level deeper); default: the folder where you are.
    Slurm is asked once for all of them, and not at all where no unfinished run has a job. LOST counts the steps that
    had to be done again.
    """
    from hpcresume.checkpoint.places import run_path
    from hpcresume.ops.overview import as_json as json_of
    from hpcresume.ops.overview import find_runs, overview
    from hpcresume.ops.run_state import NEEDS_SOMEBODY

    for path in paths:
        run_path(path)  # refuses what is none, such as ""
    found = overview(find_runs([Path(path) for path in paths] or [Path()]))
    verified = _verify(found) if verify else {}
    if as_json:
        echo_json(json_of(found, verified))
    else:
        _show(found, verified, verify)
    if found.slurm_error is not None:
        return complain(found.slurm_error)
    if False in verified.values():
        return 74
    needs = check and any(row.state.state in NEEDS_SOMEBODY for row in found.rows)
    return 77 if needs else 0


def _verify(found: Overview) -> dict[Path, bool]:
    from hpcresume.ops.targets import resolve
    from hpcresume.ops.verification import verify_all

    answers = {}
    for row in found.rows:
        if row.seen.generation is not None:
            target = resolve(row.seen.root / "generations" / row.seen.generation)
            answers[row.seen.root] = all(each.ok for each in verify_all(target, lambda *_: None))
    return answers


def _show(found: Overview, verified: dict[Path, bool], verify: bool) -> None:
    import time

    columns = [
        Column("RUN", style="bold", fold=True),
        Column("STATE"),
        Column("ATTEMPT", right=True),
        Column("STEP", right=True),
        Column("SAVED", right=True),
        Column("AGE", right=True),
        *([Column("VERIFIES")] if verify else []),
        Column("LOST", right=True),
        Column("NOW AND NEXT", fold=True),
    ]
    now = time.time()
    echo_table(columns, [_row(row, verified, verify, now) for row in found.rows])
    if len(found.rows) > 1:
        counts: dict[str, int] = {}
        for row in found.rows:
            counts[row.state.state] = counts.get(row.state.state, 0) + 1
        click.echo(f"{len(found.rows)} runs: {', '.join(f'{n} {state}' for state, n in counts.items())}")


def _row(row: Row, verified: dict[Path, bool], verify: bool, now: float) -> list[str]:
    seen, newest = row.seen, row.seen.newest
    total = f"/{newest.total}" if newest is not None and newest.total is not None else ""
    answer = {True: "yes", False: "NO", None: "-"}[verified.get(seen.root)]
    return [
        row.name,
        row.state.state,
        "-" if newest is None else str(newest.attempt),
        "-" if newest is None else f"{newest.step}{total}",
        "-" if seen.generation_step is None else str(seen.generation_step),
        "-" if seen.committed_at is None else age(now - seen.committed_at),
        *([answer] if verify else []),
        str(seen.lost),
        row.state.doing if row.state.next == "nothing to do" else f"{row.state.doing} → {row.state.next}",
    ]
