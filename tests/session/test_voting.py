"""One reduction tells every rank the same, and ranks that are not at the same place are told who is where."""

from __future__ import annotations

import pytest

from hpcresume.errors import UsageError
from hpcresume.session.voting import Ballot, Outcome, Place, cast
from hpcresume.testing.thread_ranks import run_ranks, unwrap


def vote(*ballots):
    return run_ranks(len(ballots), lambda ranks: cast(ranks, ballots[ranks.rank]), timeout=10)


@pytest.mark.parametrize("warned", range(4))
def test_a_warning_of_any_rank_is_heard_by_all(warned):
    ballots = [Ballot(Place.BOUNDARY, 7, signal=10 if r == warned else 0, arrivals=r == warned) for r in range(4)]
    assert unwrap(vote(*ballots)) == [Outcome(10, warned, 1, False, 0)] * 4


def test_rank_0_alone_says_when_to_save_and_when_to_vote_again():
    others = Ballot(Place.BOUNDARY, 7, save=True, gap=1000)
    assert (
        unwrap(vote(Ballot(Place.BOUNDARY, 7, save=False, gap=3), others, others)) == [Outcome(0, -1, 0, False, 3)] * 3
    )
    assert unwrap(vote(Ballot(Place.BOUNDARY, 7, save=True, gap=2), Ballot(Place.BOUNDARY, 7)))[1].save


@pytest.mark.parametrize(
    ("ballots", "texts"),
    [
        ([(Place.BOUNDARY, 7), (Place.BOUNDARY, 8)], ["rank 0 at the boundary after step 7", "rank 1 at"]),
        ([(Place.BOUNDARY, 7), (Place.BREAK, 7), (Place.BOUNDARY, 7)], ["ranks 0, 2 at", "rank 1 left the loop"]),
        ([(Place.FINISH, 3), (Place.BOUNDARY, 9)], ["rank 0 finished at step 3"]),
        ([(Place.POLL, 3), (Place.BOUNDARY, 3)], ["in poll(collective=True) after step 3"]),
    ],
)
def test_ranks_at_different_places_all_hear_who_is_where(ballots, texts):
    results = vote(*(Ballot(place, step) for place, step in ballots))
    assert [type(result) for result in results] == [UsageError] * len(ballots)
    for text in texts:
        assert text in str(results[0])
