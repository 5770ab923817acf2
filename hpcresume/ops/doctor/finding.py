"""One thing that was looked at: how it is, in one line, and what to try."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["EXIT_BAD", "EXIT_WARN", "VERDICTS", "Finding", "as_json", "bad", "exit_code", "ok", "unknown", "warn"]

VERDICTS: Final = ("ok", "warn", "bad", "unknown")
"""As it should be; works, with something to know; something will be lost or will not work; nobody could tell."""

EXIT_BAD: Final = 1
EXIT_WARN: Final = 3


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        area: slurm, time, mpi, folder, nodes, environment or signals.
        name: what was looked at, in a few words; stable, for programs that read the JSON.
        verdict: one of `VERDICTS`.
        what: how it is, in one line, and what that means.
        hint: what to try, "" when there is nothing to do.
    """

    area: str
    name: str
    verdict: str
    what: str
    hint: str = ""


def ok(area: str, name: str, what: str) -> Finding:
    """It is as it should be."""
    return Finding(area, name, "ok", what)


def warn(area: str, name: str, what: str, hint: str = "") -> Finding:
    """It works, and there is something to know."""
    return Finding(area, name, "warn", what, hint)


def bad(area: str, name: str, what: str, hint: str) -> Finding:
    """Something will be lost, or will not work."""
    return Finding(area, name, "bad", what, hint)


def unknown(area: str, name: str, what: str, hint: str = "") -> Finding:
    """Nobody could tell; `what` says why."""
    return Finding(area, name, "unknown", what, hint)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when nothing is bad and nothing to be warned of; what could not be told counts as neither."""
    verdicts = {each.verdict for each in findings}
    return EXIT_BAD if "bad" in verdicts else EXIT_WARN if "warn" in verdicts else 0


def as_json(finding: Finding) -> dict[str, Any]:
    """One finding of `hpcresume doctor --json`; `try` is null when there is nothing to try."""
    return {"area": finding.area, "check": finding.name, "verdict": finding.verdict, "what": finding.what,
            "try": finding.hint or None}  # fmt: skip
