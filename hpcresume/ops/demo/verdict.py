"""What the demo has found: the verdict in words, the table of attempts, the JSON object. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcresume.model import Cause, Skipped
from hpcresume.observe.history import AttemptHistory, RunHistory
from hpcresume.ops.demo.compare import Comparison, Difference
from hpcresume.ops.demo.damage import Damage

__all__ = ["TABLE", "Report", "as_json", "headline", "rows", "scenario_differences", "summary", "title"]

TABLE = ("ATTEMPT", "CAUSE", "STEPS", "LOST", "FROM GENERATION", "SAVE", "VERIFY", "RESTORE")
"""Columns of the table of attempts; the last three: for all saves of the attempt, each proved by reading it back; for
verifying the generation that it started from; for restoring it, verification included."""


@dataclass(frozen=True)
class Report:
    """Everything about one demo.

    `verify_seconds` says for each attempt how long it took one process to verify the generation that it then
    started from. `seconds` is all of the demo, from the first process to the verdict.
    """

    steps: int
    ranks: int
    nodes: int
    comparison: Comparison
    history: RunHistory
    generations: tuple[str, ...]
    damage: Damage | None
    seconds: float
    verify_seconds: Mapping[int, float] = field(default_factory=dict)
    plot: Path | None = None
    kept: Path | None = None

    @property
    def identical(self) -> bool:
        """Nothing differs, and everything that was to go wrong did."""
        return self.comparison.identical


def scenario_differences(history: RunHistory, damage: Damage | None) -> tuple[Difference, ...]:
    """What the demo promised to do to the run and did not: a demo in which nothing went wrong proves nothing."""
    causes = [attempt.cause.value if attempt.cause else "running" for attempt in history.attempts]
    wanted = [Cause.PREEMPTED.value, Cause.CRASH.value, Cause.DONE.value]
    found = []
    if causes != wanted:
        found.append(Difference("scenario", "the attempts' ends", ", ".join(causes), ", ".join(wanted)))
    skipped = [(s.generation, s.tensor) for s in history.skipped]
    if damage is None or skipped != [(damage.generation, damage.tensor)]:
        names = ", ".join(f"{s.generation} ({s.tensor})" for s in history.skipped) or "nothing"
        meant = f"{damage.generation} ({damage.tensor})" if damage else "one damaged generation"
        found.append(Difference("scenario", "what the restore skipped", names, meant))
    if len(history.attempts) > 1 and not history.attempts[1].lost_steps:
        found.append(Difference("scenario", "the kill", "no step lost", "some steps lost"))
    return tuple(found)


def headline(report: Report) -> str:
    """The verdict in one line."""
    found = report.comparison
    ends = len(report.history.attempts) - 1
    if report.identical:
        return (
            f"IDENTICAL to the last bit: {ends} interruptions, {len(report.history.skipped)} damaged generation, "
            f"{report.history.lost_steps} lost steps done again, "
            "and every loss, weight, random state and sample is that of the uninterrupted training"
        )
    return f"NOT IDENTICAL: {len(found.differences)} difference(s)"


def title(report: Report) -> str:
    """The verdict in a few words."""
    word = "identical" if report.identical else "NOT identical"
    count = len(report.history.attempts) - 1
    lost = report.history.lost_steps
    return f"{count} interruptions, {lost} lost steps done again: {word} to the uninterrupted training"


def rows(report: Report) -> list[list[str]]:
    """The table of attempts, cells as text, in the order of `TABLE`."""
    return [_row(attempt, report.verify_seconds.get(attempt.attempt)) for attempt in report.history.attempts]


def _row(attempt: AttemptHistory, verify: float | None) -> list[str]:
    return [
        str(attempt.attempt),
        attempt.cause.value if attempt.cause else "running",
        f"{attempt.start_step + 1}-{attempt.end_step}",
        str(attempt.lost_steps),
        attempt.restored_from or "-",
        _seconds(attempt.save_seconds),
        _seconds(verify),
        _seconds(attempt.restore_seconds if attempt.restored_from else None),
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def as_json(report: Report) -> dict[str, Any]:
    """The object that `hpcresume demo --json` prints; its keys are documented in the verb's help."""
    found = report.comparison
    return {
        "identical": report.identical,
        "attempts": [_attempt_json(a, report.verify_seconds) for a in report.history.attempts],
        "samples": {
            "seen": found.samples.seen,
            "duplicated": found.samples.duplicated,
            "missed": found.samples.missed,
        },
        "generations": list(report.generations),
        "skipped": [_skipped_json(skipped) for skipped in report.history.skipped],
        "seconds": round(report.seconds, 3),
        "damage": _damage_json(report.damage),
        "compared": {"losses": found.losses, "arrays": found.arrays, "bytes": found.nbytes},
        "differences": [vars(difference) for difference in found.differences],
        "steps": report.steps,
        "ranks": report.ranks,
        "nodes": report.nodes,
        "plot": str(report.plot) if report.plot else None,
        "kept": str(report.kept) if report.kept else None,
    }


def _attempt_json(attempt: AttemptHistory, verify: Mapping[int, float]) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "cause": attempt.cause.value if attempt.cause else None,
        "evidence": list(attempt.evidence),
        "start_step": attempt.start_step,
        "end_step": attempt.end_step,
        "restored_from": attempt.restored_from,
        "lost_steps": attempt.lost_steps,
        "seconds": {
            "save": round(attempt.save_seconds, 4),
            "verify": round(verify[attempt.attempt], 4) if attempt.attempt in verify else None,
            "restore": round(attempt.restore_seconds, 4) if attempt.restored_from else None,
        },
    }


def _skipped_json(skipped: Skipped) -> dict[str, Any]:
    return {
        "generation": skipped.generation,
        "reason": skipped.reason,
        "tensor": skipped.tensor,
        "offset": skipped.offset,
    }


def _damage_json(damage: Damage | None) -> dict[str, Any] | None:
    return None if damage is None else dict(vars(damage))


def summary(report: Report) -> list[str]:
    """What was compared, what differs, and where everything is, as lines."""
    found, samples = report.comparison, report.comparison.samples
    size_text = f"{found.nbytes} bytes"
    lines = [
        f"compared: {found.losses} losses; {found.arrays} final arrays ({size_text}): model, optimizer, RNG",
        f"samples:  {samples.seen} seen, {samples.duplicated} twice, {samples.missed} missed",
        f"seconds:  {report.seconds:.1f}",
    ]
    lines += [f"plot:     {report.plot}"] if report.plot else []
    lines += [f"kept in:  {report.kept}"] if report.kept else []
    return lines + _explained(found.differences)


def _explained(differences: Sequence[Difference], most: int = 20) -> list[str]:
    lines = [f"DIFFERS:  {difference}" for difference in differences[:most]]
    rest = len(differences) - most
    return [*lines, f"          and {rest} more"] if rest > 0 else lines
