"""Which generations belong to the run's history and which are orphans. Pure.

The lineage is the chain that ends at the newest attempt: what it committed, then the generation it started
from and what that one's attempt had committed before, and so on. What an older attempt commits after a newer one
has chosen its start is in no chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hpcresume.io.paths import generation_name, parse_generation_name

__all__ = ["lineage"]


def lineage(committed: Iterable[tuple[int, int]], starts: Mapping[int, str | None]) -> list[str]:
    """Names of the generations in the lineage, newest first.

    Args:
        committed: (step, attempt) of every generation on disk.
        starts: for each attempt whose start is known, the name of the generation it started from (None: from
            nothing). An attempt without one counts only if it committed, and then started from nothing.
    """
    steps: dict[int, list[int]] = {}
    for step, attempt in committed:
        steps.setdefault(attempt, []).append(step)
    attempts = sorted({*steps, *starts})
    chain: list[str] = []
    if not attempts:
        return chain
    attempt, limit = attempts[-1], None
    while True:
        own = sorted((s for s in steps.get(attempt, []) if limit is None or s <= limit), reverse=True)
        chain += [generation_name(step, attempt) for step in own]
        start = starts.get(attempt)
        parsed = parse_generation_name(start) if start else None
        if parsed is None or parsed[1] >= attempt:
            return chain
        limit, attempt = parsed
