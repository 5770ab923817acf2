"""What the ranks wrote down, and what follows from it: steps lost, samples seen twice or missed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Lives:
    """The lines of each rank, in the order in which they were written."""

    ranks: Mapping[int, Sequence[Line]]

    @property
    def count(self) -> int:
        """Steps that rank 0 has computed, those included that were computed again."""
        return len(self.steps(0))

    def steps(self, rank: int) -> list[Line]:
        """Lines of steps alone."""
        return [line for line in self.ranks.get(rank, ()) if "step" in line]

    @property
    def last_step(self) -> int:
        """The last step of the newest attempt; -1 while it has none."""
        last = -1
        for line in self.ranks.get(0, ()):
            last = -1 if line.get("event") == "began" else line.get("step", last)
        return last

    def has(self, event: str, since: float) -> bool:
        """Whether any rank noted an event after `since`."""
        return any(line.get("event") == event and line["at"] > since for lines in self.ranks.values() for line in lines)

    @property
    def lost(self) -> int:
        """Steps that were computed more than once."""
        return self.count - len({line["step"] for line in self.steps(0)})

    @property
    def attempts(self) -> int:
        """How often rank 0 began."""
        return sum(1 for line in self.ranks.get(0, ()) if line.get("event") == "began")

    def first_step_after(self, moment: float) -> float | None:
        """Seconds from `moment` to the first step of an attempt that began after it."""
        began = False
        for line in self.ranks.get(0, ()):
            began = began or (line.get("event") == "began" and line["at"] > moment)
            if began and "step" in line:
                return float(line["at"]) - moment
        return None

    def held_up(self, every: int) -> float | None:
        """Seconds, in the middle, by which a save after every so many steps makes the next step come later."""
        steps = self.steps(0)
        gaps = {after["step"]: after["at"] - before["at"] for before, after in pairwise(steps)}
        saves = [gap for step, gap in gaps.items() if step % every == 0]
        others = [gap for step, gap in gaps.items() if step % every]
        return median(saves) - median(others) if saves and others else None

    @property
    def first_step(self) -> float | None:
        """Seconds from the start of rank 0's process to its first step."""
        steps = self.steps(0)
        return float(steps[0]["at"]) - self.ranks[0][0]["started"] if steps else None

    def samples(self, batch: int) -> tuple[int, int]:
        """By how many the samples that came too often exceed their due, and by how many the others fall short of it.

        Counted over the history that led to the end, which has each step as it was computed last. A step that no line
        tells of, because its rank was killed before it could write, counts as if it had had what is due.
        """
        histories = [{line["step"]: line["ids"] for line in self.steps(rank)} for rank in self.ranks]
        seen = Counter(item for history in histories for ids in history.values() for item in ids)
        total = max((max(history, default=-1) for history in histories), default=-1) + 1
        untold = batch * sum(total - len(history) for history in histories)
        due = round((seen.total() + untold) / len(seen)) if seen else 0
        often = sum(max(0, count - due) for count in seen.values())
        seldom = sum(max(0, due - count) for count in seen.values())
        return often, max(0, seldom - untold)


def read_lives(out: Path) -> Lives:
    """Whatever the ranks have written; a line that is still being written does not count."""
    ranks = {}
    for path in sorted(out.glob("rank-*.jsonl")):
        whole = path.read_text().rpartition("\n")[0]
        ranks[int(path.stem.removeprefix("rank-"))] = [json.loads(line) for line in whole.splitlines()]
    return Lives(ranks)
