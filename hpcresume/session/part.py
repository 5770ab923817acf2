"""The part that this process took in an attempt, for whoever called the training and hears how it ended.

An exception that somebody outside has been told of means that another attempt is not wanted. Every rank can have one,
on a node that shares no directory with the supervisor but the run. So it is left where rank 0 leaves its decisions, in
a file of the rank's own.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from hpcresume.io.durable import write_durably
from hpcresume.io.paths import AttemptPaths
from hpcresume.model import Cause, Decision

__all__ = ["hold_attempt", "hold_facts", "newest_attempt", "remember_attempt"]


@dataclass(frozen=True)
class _Part:
    """The attempt that this process took part in last, and as which rank."""

    paths: AttemptPaths
    rank: int


_last: list[_Part] = []
os.register_at_fork(after_in_child=_last.clear)  # a forked child takes part in nothing of its parent's


def remember_attempt(paths: AttemptPaths, rank: int) -> None:
    """This process has begun its part in an attempt."""
    _last[:] = [_Part(paths, rank)]


def newest_attempt() -> AttemptPaths | None:
    """The attempt that this process took part in last; None when it took part in none."""
    return _last[0].paths if _last else None


def hold_facts(reason: str) -> bytes:
    """The content of a decision that the job is held, since the training itself has failed."""
    facts = {"decision": Decision.HOLD.value, "reason": reason, "cause_hint": Cause.CRASH.value}
    return json.dumps(facts).encode() + b"\n"


def hold_attempt(reason: str) -> None:
    """Leave in the attempt that it shall be held. What rank 0's session has decided stays, and counts before this.

    Raises:
        OSError: it cannot be written there.
    """
    for part in _last:
        path = part.paths.decision if part.rank == 0 else part.paths.rank_decision(part.rank)
        if not path.exists():
            write_durably(path, hold_facts(reason))
