"""One vote: a short vector, one reduction, the same answer on every rank.

Owns the vector's meaning. What any rank brings is heard by all; rank 0 alone says when to save and when to
vote again, since clocks differ and a choice of each rank's own would end in a deadlock.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

import numpy as np

from hpcresume.comm.ranks import Ranks
from hpcresume.comm.roll_call import ranks_text
from hpcresume.errors import UsageError

__all__ = ["Ballot", "Outcome", "Place", "cast"]


class Place(enum.IntEnum):
    """Where in its program a rank votes."""

    BOUNDARY = 0
    FINISH = 1
    BREAK = 2
    POLL = 3


_PLACES = {
    Place.BOUNDARY: "at the boundary after step {step}",
    Place.FINISH: "finished at step {step}",
    Place.BREAK: "left the loop in step {step}",
    Place.POLL: "in poll(collective=True) after step {step}",
}


@dataclass(frozen=True)
class Ballot:
    """What one rank brings.

    Attributes:
        place: where it is.
        step: finished steps.
        signal: number of the first warning it was given, 0 for none.
        arrivals: how many signals it was given.
        save: rank 0 wants a save here (ignored from others).
        gap: rank 0 wants the next vote so many steps later (ignored from others).
        overtaken: a newer attempt of the run has begun.
    """

    place: Place
    step: int
    signal: int = 0
    arrivals: int = 0
    save: bool = False
    gap: int = 0
    overtaken: bool = False


@dataclass(frozen=True)
class Outcome:
    """What all ranks now know. `warned_rank` is the highest rank that was warned, -1 when none was."""

    signal: int
    warned_rank: int
    arrivals: int
    save: bool
    gap: int
    overtaken: bool = False


def cast(ranks: Ranks, ballot: Ballot) -> Outcome:
    """Collective. Vote.

    Raises:
        UsageError: ranks vote at different places of the program; on all ranks, and says who is where.
    """
    mine = ranks.rank == 0
    sent = [
        ballot.step,
        -ballot.step,
        ballot.place,
        -ballot.place,
        ballot.signal,
        ranks.rank + 1 if ballot.signal else 0,
        ballot.arrivals,
        ballot.save if mine else 0,
        ballot.gap if mine else 0,
        ballot.overtaken,
    ]
    heard = ranks.allreduce_max(np.array(sent, dtype=np.int64)).tolist()
    step, least_step, place, least_place, signal, warned, arrivals, save, gap, overtaken = heard
    if step != -least_step or place != -least_place:
        raise _scattered(ranks, ballot)
    return Outcome(signal, warned - 1, arrivals, bool(save), gap, bool(overtaken))


def _scattered(ranks: Ranks, ballot: Ballot) -> UsageError:
    texts = [text.decode() for text in ranks.allgather(json.dumps([ballot.place, ballot.step]).encode())]
    groups: dict[str, list[int]] = {}
    for rank, text in enumerate(texts):
        place, step = json.loads(text)
        groups.setdefault(_PLACES[Place(place)].format(step=step), []).append(rank)
    listed = "; ".join(f"{ranks_text(who)} {where}" for where, who in groups.items())
    return UsageError(
        f"the ranks are at different places: {listed}",
        where="vote",
        hint="break, s.finish() and s.poll(collective=True) have to happen on all ranks in the same step",
    )
