"""How often a run is interrupted without a warning, from its own history and from what is likely before. Pure.

Only ends that cost work count. A warned end is saved in time, so it says nothing about how often to save.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PRIOR", "Exposure", "mean_time"]


@dataclass(frozen=True)
class Exposure:
    """What a run has been through.

    Attributes:
        failures: ends that cost work: crashes, lost nodes, warnings that came too late.
        seconds: how long its attempts worked in all, those without such an end included.
    """

    failures: int = 0
    seconds: float = 0.0

    def __add__(self, other: Exposure) -> Exposure:
        return Exposure(self.failures + other.failures, self.seconds + other.seconds)


PRIOR: Final = Exposure(failures=2, seconds=2 * 6 * 3600.0)
"""As if two failures in twelve hours had been seen before: between a queue that preempts without a warning (hours) and
a large healthy job (half a day). The weight of two is what keeps the first real failure from swinging the result."""


def mean_time(seen: Exposure, prior: Exposure = PRIOR) -> float:
    """Seconds between failures.

    The rate of a Poisson process with a gamma prior has the posterior mean (a + k) / (b + T) after k failures in the
    time T (Gelman et al., Bayesian Data Analysis, 3rd ed., section 2.6); this is its inverse.
    """
    return (prior.seconds + max(0.0, seen.seconds)) / (prior.failures + max(0, seen.failures))
