"""What happens in the demo, as one line of text each: shared by the live view and the log.

Pure: from the events of sessions and supervisors to words. Events nobody needs to see give no line.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpcresume.io.paths import parse_generation_name
from hpcresume.model import Event, Skipped
from hpcresume.observe.facts import skipped_from
from hpcresume.observe.figures import size
from hpcresume.observe.follow import Update
from hpcresume.observe.ledger_reader import Record

__all__ = ["Line", "narrate", "narrate_deed"]


@dataclass(frozen=True)
class Line:
    """One thing to show: unix seconds, the words, and their tone: "plain", "good", "warn" or "bad"."""

    t: float
    text: str
    tone: str = "plain"


def narrate(update: Update) -> list[Line]:
    """The lines for an update, none when it is not worth one."""
    record = update.record
    if not isinstance(record, Record):
        return []
    speak = _SPEAKERS.get((update.source, record.event))
    said = speak(record) if speak else []
    return [Line(record.t, f"attempt {update.attempt}: {text}", tone) for text, tone in said]


def narrate_deed(event: Event, t: float) -> Line | None:
    """The line for what the emulated scheduler does to the job (unix seconds `t`), if it is worth one."""
    fields = event.fields
    if event.name == "start":
        back = "back from the queue: " if fields["attempt"] > 1 else ""
        return Line(t, f"{back}{fields['ranks']} ranks start on {fields['nodes']}")
    if event.name == "preempt":
        return Line(t, f"the nodes are wanted back: SIGUSR1, and KILL in {fields['grace']:g} s", "warn")
    if event.name == "kill-rank":
        return Line(t, f"kill -9 of rank {fields['rank']}, no warning, after step {fields['step']}", "bad")
    return None


def _signal(value: Any) -> str:
    """A signal by name, whether it was recorded by number or by name."""
    try:
        return signal.Signals(int(value)).name
    except ValueError:
        return str(value)


def _step_of(generation: str) -> str:
    parsed = parse_generation_name(generation)
    return f"step {parsed[0]}" if parsed else generation


_Said = list[tuple[str, str]]


def _restored(record: Record) -> _Said:
    said = [(_skipped(each), "warn") for each in skipped_from(record.fields.get("skipped"))]
    seconds = record.number("seconds")
    text = f"restored {_step_of(record.text('generation'))} in {seconds:.2f} s, every byte verified"
    return [*said, (text, "good")]


def _skipped(skipped: Skipped) -> str:
    place = f"byte {skipped.offset} of {skipped.tensor or 'its metadata'}" if skipped.offset >= 0 else skipped.reason
    return f"{_step_of(skipped.generation)} is damaged, {place}: skipped"


def _saved(record: Record) -> _Said:
    read_back = "not read back" if record.text("read_back") == "none" else "read back"
    nbytes, seconds = size(round(record.number("bytes"))), record.number("seconds")
    text = f"saved {_step_of(record.text('generation'))}: {nbytes}, {read_back}, committed, {seconds:.2f} s"
    return [(text, "good")]


def _warning(record: Record) -> _Said:
    return [(f"warned by {_signal(record.fields.get('signal'))}: time is short", "warn")]


def _stop(record: Record) -> _Said:
    return [(f"all ranks stop together after step {int(record.number('step'))}", "warn")]


def _ended(record: Record) -> _Said:
    cause = record.text("cause")
    return [(f"ended: {cause}", "good" if cause == "done" else "bad")]


_SPEAKERS: dict[tuple[str, str], Callable[[Record], _Said]] = {
    ("session", "fresh-start"): lambda _: [("starts from nothing", "plain")],
    ("session", "restored"): _restored,
    ("session", "warning"): _warning,
    ("session", "stop"): _stop,
    ("session", "saved"): _saved,
    ("session", "save-failed"): lambda r: [(f"a save failed: {r.text('error')}", "bad")],
    ("session", "exception"): lambda r: [(f"{r.text('type')}: {r.text('message')}", "bad")],
    ("session", "finished"): lambda r: [(f"finished at step {int(r.number('step'))}", "good")],
    ("supervisor", "ended"): _ended,
}
