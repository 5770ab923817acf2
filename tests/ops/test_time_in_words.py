"""What `hpcresume watch` says of time: leads, our own clock, short allocations, what "auto" chose."""

from __future__ import annotations

import pytest

from hpcresume.observe.figures import duration
from hpcresume.observe.follow import Update
from hpcresume.observe.ledger_reader import Record
from hpcresume.ops.watching import words_of


@pytest.mark.parametrize(
    ("source", "event", "fields", "said", "tone"),
    [
        ("supervisor", "lead", {"seconds": 95.0, "why": "a save takes up to 40.0 s"},
         "the ranks are told 1 min 35 s before the end: a save takes up to 40.0 s", "plain"),
        ("supervisor", "warning-by-clock", {"left": 94.8}, "our own clock tells the ranks, 1 min 35 s before the end",
         "warn"),
        ("supervisor", "short-allocation", {"left": 20.0, "needed": 97.0},
         "the allocation has 20 s left, and the run needs 1 min 37 s: it may come to nothing", "bad"),
        ("session", "cadence", {"seconds": 650.6, "why": "this loses least time", "save_seconds": 9.5},
         "saves every 10 min 51 s (this loses least time; a save takes 9.5 s)", "plain"),
        ("session", "cadence", {"seconds": 60, "why": "the first save measures what one costs", "save_seconds": None},
         "saves every 1 min (the first save measures what one costs)", "plain"),
    ],
)  # fmt: skip
def test_what_watch_says_of_time(source, event, fields, said, tone):
    (line,) = words_of(Update(2, source, Record(5.0, event, fields)))
    assert (line.text, line.tone) == (f"attempt 2: {said}", tone)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.042, "0.042 s"), (3.25, "3.2 s"), (59.4, "59 s"), (59.7, "1 min"), (60, "1 min"), (95, "1 min 35 s"),
     (3600, "1 h"), (5000, "1 h 23 min"), (0, "0 s")],
)  # fmt: skip
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text
