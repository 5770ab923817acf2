"""What "auto" costs over whole runs, against the best interval that somebody could have known only afterwards."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import fmean, median

import pytest

from hpcresume.policy.cadence import Auto, choose_interval
from hpcresume.policy.failures import Exposure, mean_time
from tests.support.sampling import sampled

HOUR = 3600.0
SEEDS = 60


@dataclass(frozen=True)
class World:
    """A cluster: seconds between failures, between warned preemptions, and what a save takes at the median; and how
    many failures long the run is.
    """

    failures: float
    preemptions: float
    save: float
    length: float = 20

    @property
    def work(self) -> float:
        """Seconds of training."""
        return self.length * self.failures


def wasted(world: World, seed: int, fixed: float | None) -> float:
    """Seconds spent on saves and on work done twice, with a fixed interval or with "auto".

    The failures are the same for every interval: their moments are drawn before anything else.
    """
    moments, costs = random.Random(seed), random.Random(seed + 1_000_000)
    done = 0.0  # work that is in a generation
    now = spent = 0.0
    seen, measured = Exposure(), list[float]()
    failure, preemption = moments.expovariate(1 / world.failures), moments.expovariate(1 / world.preemptions)
    while done < world.work:
        began = now  # an attempt; what a restart takes is the same for all, and left out
        while True:
            interval = fixed
            if interval is None:
                mean = mean_time(seen + Exposure(0, now - began))
                interval = choose_interval(Auto(), median(measured[-5:]) if measured else None, mean).seconds
            cost = world.save * costs.lognormvariate(0, 0.3)
            interval = min(interval, world.work - done)
            warned = preemption < failure and preemption < now + interval
            if warned:
                interval = max(0.0, preemption - now)  # a save at once, and nothing is lost
            if failure < now + interval + cost:
                spent += failure - now
                now, seen = failure, seen + Exposure(1, failure - began)
                failure = now + moments.expovariate(1 / world.failures)
                preemption = max(preemption, now)
                break
            now, done, spent = now + interval + cost, done + interval, spent + cost
            measured.append(cost)
            if warned:
                seen, preemption = seen + Exposure(0, now - began), now + moments.expovariate(1 / world.preemptions)
                break
            if done >= world.work:
                break
    return spent


WORLDS = [
    (World(HOUR, 1000 * HOUR, 5), True),
    (World(2 * HOUR, 3 * HOUR, 20), True),
    (World(6 * HOUR, 1000 * HOUR, 10), False),
    (World(6 * HOUR, 2 * HOUR, 60), False),
    (World(24 * HOUR, 4 * HOUR, 120), True),
    (World(48 * HOUR, 1000 * HOUR, 30), False),
    (World(1 * HOUR, 2 * HOUR, 60), False),
]
SHORT = [World(48 * HOUR, 1000 * HOUR, 30, length=3), World(1 * HOUR, 1000 * HOUR, 30, length=3)]
"""Runs that are over before they have seen how often they fail: what is taken for likely counts most."""


@pytest.mark.parametrize("world", sampled([w for w, _ in WORLDS], lambda w: dict(WORLDS)[w]))
def test_auto_wastes_at_most_a_tenth_more_than_the_best_fixed_interval(world):
    assert against_the_best(world) <= 1.10


@pytest.mark.parametrize("world", sampled(SHORT, lambda _: False))
def test_in_a_run_that_is_over_before_it_knows_how_often_it_fails_it_is_a_third_at_most(world):
    assert against_the_best(world) <= 4 / 3


def against_the_best(world: World) -> float:
    """What "auto" wastes, as a multiple of what the best fixed interval does."""
    best_guess = math.sqrt(2 * world.save * world.failures)
    grid = [best_guess * 1.25**power for power in range(-6, 7)]
    fixed = {each: fmean(wasted(world, seed, each) for seed in range(SEEDS)) for each in grid}
    auto = fmean(wasted(world, seed, None) for seed in range(SEEDS))
    best = min(fixed, key=lambda each: fixed[each])
    print(f"{world}: auto {auto:.0f} s, best {fixed[best]:.0f} s every {best:.0f} s, {auto / fixed[best]:.3f}")
    assert best not in (grid[0], grid[-1]), "the best lies within the grid"
    return auto / fixed[best]


def test_the_measure_can_tell_a_bad_interval_from_a_good_one():
    world = World(2 * HOUR, 3 * HOUR, 20)
    good = fmean(wasted(world, seed, math.sqrt(2 * 20 * 2 * HOUR)) for seed in range(20))
    for factor in (0.2, 5):
        bad = fmean(wasted(world, seed, factor * math.sqrt(2 * 20 * 2 * HOUR)) for seed in range(20))
        assert bad > 1.5 * good
