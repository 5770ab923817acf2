"""How many steps may pass until the ranks vote again. Pure; rank 0 alone asks, and tells the others."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_STEPS", "steps_until_next_vote"]

MOST_STEPS: Final = 32
"""Between two votes at most. A vote costs some 20 to 100 µs, so one in 32 steps is already free; and should
every step suddenly take much longer, no more than this many slow steps go by before a warning is heard."""


def steps_until_next_vote(
    *, previous: int, step: int, total: int, step_seconds: float | None, reaction: float, forced: int | None
) -> int:
    """Steps from `step` to the next vote, at least 1.

    Args:
        previous: the last answer; the next is at most twice that, so that slow first steps do not matter.
        step: finished steps.
        total: steps in the whole run; there is a vote at the last one.
        step_seconds: what a step took since the last vote, None before any was measured.
        reaction: seconds that may pass between votes; 0 means a vote at every step.
        forced: a step at which a save is due by count, never to be skipped; None if there is none.
    """
    bounds = [2 * previous, MOST_STEPS, total - step]
    if forced is not None:
        bounds.append(forced - step)
    if reaction <= 0 or step_seconds is None:
        return 1
    return max(1, min(int(min(reaction / max(step_seconds, 1e-9), MOST_STEPS)), *bounds))
