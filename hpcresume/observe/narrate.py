"""What happens to a run, as one line of text each: for whoever watches, in a live view or a log.

Pure: from the events of sessions and supervisors to words. Events nobody needs to see give no line. `story` tells the
same afterwards, in sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcresume.io.paths import parse_generation_name
from hpcresume.model import Skipped
from hpcresume.observe.facts import skipped_from
from hpcresume.observe.figures import duration, size
from hpcresume.observe.follow import Update
from hpcresume.observe.ledger_reader import Record

__all__ = ["Line", "narrate"]


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
    return [(f"warned by {record.signal()}: time is short", "warn")]


def _stop(record: Record) -> _Said:
    return [(f"all ranks stop together after step {int(record.number('step'))}", "warn")]


def _ended(record: Record) -> _Said:
    cause = record.text("cause")
    return [(f"ended: {cause}", "good" if cause == "done" else "bad")]


def _cadence(record: Record) -> _Said:
    every, save = duration(record.number("seconds")), record.number("save_seconds")
    cost = f"; a save takes {duration(save)}" if save else ""
    return [(f"saves every {every} ({record.text('why')}{cost})", "plain")]


_SPEAKERS: dict[tuple[str, str], Callable[[Record], _Said]] = {
    ("session", "cadence"): _cadence,
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
