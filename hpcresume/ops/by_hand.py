"""What people did to a run through hpcresume: RUN/by-hand.jsonl, so that whoever looks at night knows who was there."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from hpcresume.io.durable import append_line
from hpcresume.io.paths import RunPaths
from hpcresume.io.users import user_name
from hpcresume.observe.instants import date_and_time
from hpcresume.observe.lines import read_lines

__all__ = ["deeds", "note"]

NAME = "by-hand.jsonl"


def note(run: RunPaths, event: str, **fields: Any) -> None:
    """Write down what was done. Never raises: the deed matters more than its record."""
    line = {"t": time.time(), "event": event, "user": user_name(), "host": os.uname().nodename, **fields}
    with contextlib.suppress(OSError):
        append_line(run.root / NAME, line)


def deeds(run: RunPaths) -> list[str]:
    """What was done, one line each, the oldest first.

    Raises:
        OSError: the record is there and cannot be read.
    """
    return [_words(line) for line in read_lines(run.root / NAME).objects]


def _words(line: dict[str, Any]) -> str:
    t = line.get("t")
    when = date_and_time(t) if isinstance(t, int | float) else "?"
    job = f" of job {line['job_id']}" if line.get("job_id") else ""
    how = f": {line['how']}" if line.get("how") else ""
    return f"{line.get('event')}{job} at {when} by {line.get('user')} on {line.get('host')}{how}"
