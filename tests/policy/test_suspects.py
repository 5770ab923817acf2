"""Which nodes are suspect after losses that several came upon."""

from __future__ import annotations

from hpcresume.policy.suspects import Exclusion, Suspect, add_lost

RULES = Exclusion(seconds=100.0)


def test_a_loss_that_is_known_is_not_counted_again_and_a_later_one_is():
    known = add_lost((), [("n1", 10.0), ("n2", 12.0)], RULES)
    assert known == (Suspect("n1", 10.0), Suspect("n2", 12.0))
    assert add_lost(known, [("n1", 10.0), ("n2", 11.0)], RULES) == known
    assert add_lost(known, [("n1", 20.0)], RULES) == (Suspect("n2", 12.0), Suspect("n1", 20.0, times=2))


def test_without_a_loss_all_stays_as_it_was():
    known = (Suspect("n1", 10.0),)
    assert add_lost(known, [], RULES) == known
