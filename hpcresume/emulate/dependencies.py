"""What a job waits for: `--dependency`, parsed and judged. Pure (sbatch(1), --dependency)."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcresume.emulate.getopt_long import OptionError

__all__ = ["Dependency", "Fate", "Met", "judge", "judge_one", "parse_dependency", "together"]

KINDS = ("after", "afterany", "afternotok", "afterok", "aftercorr", "singleton")
_TARGET = re.compile(r"([0-9]{1,9})(?:_([0-9]{1,9}|\*))?(?:\+([0-9]{1,9}))?")


class Met(enum.Enum):
    """Where a dependency stands."""

    YES = "yes"
    WAITING = "waiting"
    NEVER = "never"


@dataclass(frozen=True)
class Dependency:
    """One condition: its kind, the job it concerns (0 for singleton), a task of that array (None: all), seconds."""

    kind: str
    job: int = 0
    task: int | None = None
    delay: float = 0.0

    def __str__(self) -> str:
        """As squeue shows it."""
        task = "" if self.task is None else f"_{self.task}"
        delay = f"+{round(self.delay / 60)}" if self.delay else ""
        return f"{self.kind}:{self.job}{task}{delay}" if self.job else self.kind


@dataclass(frozen=True)
class Fate:
    """What a dependency asks about the jobs it names: has each begun, is each over, did each succeed?"""

    started: float | None
    ended: bool
    ok: bool


def parse_dependency(text: str) -> tuple[tuple[Dependency, ...], bool]:
    """The conditions of `afterok:1:2,afterany:3`, and whether any one of them is enough (`?` between them).

    Raises:
        OptionError: no such form.
    """
    if not text:
        return (), False
    any_one = "?" in text
    if any_one and "," in text:
        raise _problem()
    found: list[Dependency] = []
    for part in re.split(r"[,?]", text):
        kind, *targets = part.split(":")
        if kind not in KINDS or (kind == "singleton") == bool(targets):
            raise _problem()
        found += [_target(kind, target) for target in targets] or [Dependency("singleton")]
    return tuple(found), any_one


def _target(kind: str, text: str) -> Dependency:
    match = _TARGET.fullmatch(text)
    if match is None or (match[3] and kind != "after"):
        raise _problem()
    task = int(match[2]) if match[2] and match[2] != "*" else None
    return Dependency(kind, int(match[1]), task, 60.0 * int(match[3] or 0))


def _problem() -> OptionError:
    return OptionError("sbatch: error: Batch job submission failed: Job dependency problem\n")


def judge(
    conditions: tuple[Dependency, ...], any_one: bool, look: Callable[[Dependency], list[Fate]], now: float
) -> Met:
    """Where the whole stands. `look` gives the fates of the jobs that a condition concerns, none for unknown ones."""
    return together([judge_one(each, look(each), now) for each in conditions], any_one)


def together(verdicts: Sequence[Met], any_one: bool) -> Met:
    """Where the whole stands when each condition stands so."""
    if any_one and verdicts:
        if Met.YES in verdicts:
            return Met.YES
        return Met.NEVER if all(v is Met.NEVER for v in verdicts) else Met.WAITING
    if Met.NEVER in verdicts:
        return Met.NEVER
    return Met.WAITING if Met.WAITING in verdicts else Met.YES


def judge_one(condition: Dependency, fates: list[Fate], now: float) -> Met:
    """Where one condition stands."""
    if condition.kind == "singleton":
        return Met.YES if all(fate.ended for fate in fates) else Met.WAITING
    if condition.kind == "after":
        done = all(f.ended or (f.started is not None and now >= f.started + condition.delay) for f in fates)
        return Met.YES if done else Met.WAITING
    if condition.kind == "afterok" or condition.kind == "aftercorr":
        if any(fate.ended and not fate.ok for fate in fates):
            return Met.NEVER
        return Met.YES if all(fate.ended for fate in fates) else Met.WAITING
    if not all(fate.ended for fate in fates):
        return Met.WAITING
    if condition.kind == "afternotok":
        return Met.YES if any(not fate.ok for fate in fates) else Met.NEVER
    return Met.YES
