"""Writes the tables of docs/EMULATOR.md from the conformance cases; with --check only says whether they are current."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.emulate.conformance import (  # noqa: E402
    ACTORS,
    ANSWER_CASES,
    EXIT_CASES,
    SIGNAL_CASES,
    SignalCase,
)
from tests.emulate.lives import LIFE_CASES  # noqa: E402

PAGE = ROOT / "docs" / "EMULATOR.md"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def heard(case: SignalCase, actor: str) -> str:
    """What reaches one of them: `CONT+USR1, then CONT+TERM`."""
    first, later = ("+".join(of.get(actor, "").split()) for of in (case.at_once, case.later))
    return ", ".join(filter(None, (first, later and f"then {later}"))) or "–"


def parts() -> dict[str, str]:
    """The text of each marked place."""
    signals = [
        [c.event, *(heard(c, actor) for actor in ACTORS), c.outcome.replace("; ", "; on ")] for c in SIGNAL_CASES
    ]
    exits = [[f"`{case.command}`", str(case.code)] for case in EXIT_CASES]
    answers = [
        [f"`{' '.join(c.words)}`", str(c.code), f"`{c.shows}`".replace("\n", " ") if c.shows else ""]
        for c in ANSWER_CASES
    ]
    return {
        "signals": table(["event", "batch shell", "its child", "rank 0", "rank 1", "the job"], signals),
        "exits": table(["command", "exit code"], exits),
        "answers": table(["command", "exit code", "says"], answers),
        "lives": "".join(f"- {' '.join(case.says.split())}\n" for case in LIFE_CASES),
    }


def filled(text: str) -> str:
    """The page with its tables."""
    for name, part in parts().items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, part=part: match[1] + part + match[2], text)
        assert count == 1, name
    return text


def main() -> int:
    """Write or check; 1 when the page is stale."""
    text = PAGE.read_text(encoding="utf-8")
    wanted = filled(text)
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
