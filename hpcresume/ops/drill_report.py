"""What a drill has shown: pure, from what the run's files and Slurm told to the judgement and its words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcresume.observe.ledger_reader import MetricRecord
from hpcresume.ops.drill_judgement import Judged

__all__ = ["Comparison", "DrillReport", "as_json", "compare_curves", "sentences"]

EXIT_LOST = 1
EXIT_TIGHT = 3
"""As `hpcresume doctor`: nothing was lost, and there is something to be warned of."""
EXIT_NOT_BACK = 77


@dataclass(frozen=True)
class Comparison:
    """Values that were logged for the same step before and after: how many steps, and those that differ."""

    repeated: int = 0
    different: tuple[int, ...] = ()


@dataclass(frozen=True)
class DrillReport:
    """What happened. Times are seconds since the drill's order was given, None for what did not happen.

    Attributes:
        order: the command that was given, as words.
        warned: was a warning part of it?
        before, after: the attempt that was interrupted, and the one that goes on; 0 while there is none.
        step: finished steps when the order was given.
        warned_after, warned_step: when the session heard it, and at which step it answered.
        saved_after, saved, saved_step, save_seconds: the generation that it committed.
        ended_after, cause: the end of the attempt, and its recorded cause.
        again_after: when the next attempt began.
        restored, restored_step, restore_seconds: what that one went on from.
        skipped: generations that it found damaged.
        first_step_after, first_step: its first finished step.
        lost: steps that had to be done again.
        curve: of those, whether the values are the same.
        finished: is the run done?
        problem: why it did not come back, "" when it did.
        judged: the time that it took to save, against what a real end would leave.
    """

    order: str
    warned: bool
    before: int
    step: int
    after: int = 0
    warned_after: float | None = None
    warned_step: int | None = None
    saved_after: float | None = None
    saved: str | None = None
    saved_step: int | None = None
    save_seconds: float | None = None
    ended_after: float | None = None
    cause: str | None = None
    again_after: float | None = None
    restored: str | None = None
    restored_step: int | None = None
    restore_seconds: float | None = None
    skipped: tuple[str, ...] = ()
    first_step_after: float | None = None
    first_step: int | None = None
    lost: int | None = None
    curve: Comparison | None = None
    finished: bool = False
    problem: str = ""
    judged: tuple[Judged, ...] = ()

    @property
    def verdict(self) -> str:
        """Nothing lost, too tight (the same, and a real end would have left too little time), lost, or not back."""
        if self.problem:
            return "not back"
        if self.lost or self.skipped or (self.curve is not None and self.curve.different):
            return "lost"
        if any(each.verdict in ("warn", "bad") for each in self.judged):
            return "too tight"
        return "nothing lost"

    @property
    def exit_code(self) -> int:
        """0 when nothing was lost, 3 when it was a close thing, 1 when something was, 77 when somebody has to look."""
        codes = {"nothing lost": 0, "too tight": EXIT_TIGHT, "lost": EXIT_LOST, "not back": EXIT_NOT_BACK}
        return codes[self.verdict]


def compare_curves(before: Sequence[MetricRecord], after: Sequence[MetricRecord]) -> Comparison:
    """Steps that both attempts logged; equal means to the last bit, NaN being equal to NaN."""
    old = {record.step: record.values for record in before}
    both = [(record.step, old[record.step], record.values) for record in after if record.step in old]
    different = tuple(step for step, was, now in both if not _same(was, now))
    return Comparison(len(both), different)


def _same(was: Mapping[str, float], now: Mapping[str, float]) -> bool:
    shared = was.keys() & now.keys()
    return all(was[name] == now[name] or (math.isnan(was[name]) and math.isnan(now[name])) for name in shared)


def sentences(report: DrillReport) -> list[tuple[str, str]]:
    """The report as rows for people: what, and how it was."""
    rows = [("ordered", f"{report.order}, at step {report.step} of attempt {report.before}")]
    if report.warned or report.warned_after is not None:
        rows.append(("warned", _warned(report)))
    if report.saved is not None:
        took = f", the save took {report.save_seconds:.3g} s" if report.save_seconds is not None else ""
        rows.append(("saved", f"{report.saved} after {_seconds(report.saved_after)}{took}"))
    else:
        rows.append(("saved", "no save that began after the order was committed"))
    rows += [(each.against, each.what + (f" (try: {each.hint})" if each.hint else "")) for each in report.judged]
    if report.ended_after is not None:
        rows.append(("ended", f"after {_seconds(report.ended_after)}, cause {report.cause or 'not told'}"))
    if report.again_after is not None:
        rows.append(("ran again", f"after {_seconds(report.again_after)}, as attempt {report.after}"))
    rows += _restored(report)
    if report.first_step_after is not None:
        rows.append(("first step", f"step {report.first_step} after {_seconds(report.first_step_after)}"))
    rows += _lost(report)
    if report.finished:
        rows.append(("finished", "the run is done"))
    if report.problem:
        rows.append(("problem", report.problem))
    return rows


def _warned(report: DrillReport) -> str:
    if report.warned_after is None:
        return "the session heard nothing"
    how = "" if report.warned else " (by the TERM of the end itself: KillWait is all that is left)"
    return f"after {_seconds(report.warned_after)}, answered at step {report.warned_step}{how}"


def _restored(report: DrillReport) -> list[tuple[str, str]]:
    if report.after == 0:
        return []
    if report.restored is None:
        return [("restored", "nothing: it began at step 0")]
    took = f" in {report.restore_seconds:.3g} s" if report.restore_seconds is not None else ""
    rows = [("restored", f"{report.restored}, verified{took}")]
    if report.skipped:
        rows.append(("skipped", f"damaged: {', '.join(report.skipped)}"))
    return rows


def _lost(report: DrillReport) -> list[tuple[str, str]]:
    if report.lost is None:
        return []
    rows = [("lost", f"{report.lost} steps were done again" if report.lost else "no step")]
    curve = report.curve
    if curve is None or not report.lost:
        return rows
    if not curve.repeated:
        return [*rows, ("curve", "nothing was logged for the repeated steps (s.log), so there is nothing to compare")]
    if curve.different:
        named = ", ".join(map(str, curve.different[:5]))
        return [*rows, ("curve", f"DIFFERENT in {len(curve.different)} of {curve.repeated} repeated steps: {named}")]
    return [*rows, ("curve", f"the same to the last bit in all {curve.repeated} repeated steps that were logged")]


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} s"


def as_json(report: DrillReport) -> dict[str, Any]:
    """The object that `hpcresume drill --json` prints."""
    curve = report.curve
    facts = {key: value for key, value in vars(report).items() if key not in ("curve", "judged", "skipped")}
    return {
        **facts,
        "judged": [_judged(each) for each in report.judged],
        "skipped": list(report.skipped),
        "repeated_steps_compared": curve.repeated if curve is not None else None,
        "different_steps": list(curve.different) if curve is not None else None,
        "verdict": report.verdict,
    }


def _judged(each: Judged) -> dict[str, Any]:
    facts = {key: value for key, value in vars(each).items() if key != "hint"}
    return {**facts, "try": each.hint or None}
