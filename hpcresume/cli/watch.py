"""`hpcresume watch`: a run live, until it is done or needs somebody."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from hpcresume.cli.output import on_terminal, printable

if TYPE_CHECKING:
    from hpcresume.observe.narrate import Line
    from hpcresume.ops.watching import Look, Watcher

__all__ = ["command"]

EPILOG = """\b
Exit codes
    0  the run is done
   73  there is no run, or it cannot be read
   77  it is held, or ended and nobody brings it back: hpcresume why RUN
  130  Ctrl-C; the run goes on

Of a chain of stages a line is shown whenever the state of one changes, until all are done; RUN/STAGE is one of them.

--json: one JSON object a line, for each event (t, attempt, source, event, fields) and each change of the state (as
hpcresume status --json gives a run).
"""

BEAT = 60.0
"""Seconds between two lines about the step where there is no terminal."""


@click.command("watch", epilog=EPILOG)
@click.argument("path", type=click.Path(readable=False), metavar="RUN")
@click.option("--every", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS",
              help="Between two looks at the run's files.")  # fmt: skip
@click.option("--ask-every", type=click.FloatRange(min=1), default=30.0, show_default=True, metavar="SECONDS",
              help="Between two questions to Slurm, at least.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(path: str, every: float, ask_every: float, as_json: bool) -> int:
    """Watch RUN until it is done, held, or ended. Ctrl-C leaves; the run goes on."""
    from hpcresume.ops.chain_record import stages_at
    from hpcresume.ops.targets import typed
    from hpcresume.ops.the_run import the_run
    from hpcresume.ops.watching import Watcher

    if stages_at(path):
        return _chain(path, max(every, 1.0), ask_every, as_json=as_json)
    run = the_run(path)
    watcher = Watcher(run, ask_every)
    show = _json_lines if as_json else _live if on_terminal() else _plain_lines
    with typed(run):
        last = show(watcher, every)
    state = last.row.state
    if not as_json:
        following = "" if state.next == "nothing to do" else f" → {state.next}"
        click.echo(printable(f"{last.row.name} is {state.state}: {state.doing}{following}"))
    return 0 if state.state == "done" else 77


def _chain(path: str, every: float, ask_every: float, *, as_json: bool) -> int:
    """A line whenever a stage's state changes; 0 when all are done, 77 when nothing more happens by itself."""
    from hpcresume.ops.chain_watching import ChainWatcher
    from hpcresume.ops.overview import row_as_json

    watcher = ChainWatcher(path, ask_every)
    while True:
        look = watcher.look()
        for row in look.changed:
            if as_json:
                click.echo(json.dumps(row_as_json(row), allow_nan=False))
            else:
                following = "" if row.state.next == "nothing to do" else f" → {row.state.next}"
                text = f"{row.seen.root.name} is {row.state.state}: {row.state.doing}{following}"
                click.echo(f"{_clock(time.time())}  {printable(text)}")
        if look.over:
            return 0 if look.done else 77
        time.sleep(every)


def _plain_lines(watcher: Watcher, every: float) -> Look:
    told, beat = "", 0.0
    first = True
    while True:
        look = watcher.look()
        lines = look.lines[-10:] if first else look.lines
        for line in lines:
            click.echo(f"{_clock(line.t)}  {printable(line.text)}")
        text = _state_words(look)
        if not look.over and (look.row.state.state + look.row.state.next != told or time.monotonic() > beat):
            told, beat = look.row.state.state + look.row.state.next, time.monotonic() + BEAT
            click.echo(f"{_clock(time.time())}  {printable(text)}")
        first = False
        if look.over:
            return look
        time.sleep(every)


def _json_lines(watcher: Watcher, every: float) -> Look:
    from hpcresume.ops.overview import row_as_json

    told: dict[str, object] = {}
    while True:
        look = watcher.look()
        for update in look.updates:
            record = update.record
            fields = dict(getattr(record, "fields", {}))
            click.echo(json.dumps({"t": record.t, "attempt": update.attempt, "source": update.source,
                                   "event": getattr(record, "event", ""), "fields": fields}))  # fmt: skip
        row = row_as_json(look.row)
        if {**row, "doing": ""} != told or look.over:
            told = {**row, "doing": ""}
            click.echo(json.dumps(row, allow_nan=False))
        if look.over:
            return look
        time.sleep(every)


def _live(watcher: Watcher, every: float) -> Look:
    from rich.console import Console
    from rich.live import Live

    from hpcresume.cli.watch_view import picture

    console = Console()
    kept: list[Line] = []
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            look = watcher.look()
            kept = [*kept, *look.lines][-100:]
            live.update(picture(look, kept, console.width, console.height, time.time()), refresh=True)
            if look.over:
                return look
            time.sleep(every)


def _state_words(look: Look) -> str:
    newest, state = look.row.seen.newest, look.row.state
    step = ""
    if newest is not None:
        total = f"/{newest.total}" if newest.total is not None else ""
        pace = f", {look.pace:.3g} steps/s" if look.pace and state.state == "running" else ""
        step = f" step {newest.step}{total}{pace};"
    return f"{state.state}:{step} {state.doing}"


def _clock(moment: float) -> str:
    from hpcresume.observe.instants import date_and_time

    return date_and_time(moment)[11:]
