"""The table as Markdown, for docs/SLURM.md."""

from __future__ import annotations

import json
from pathlib import Path

from tests.slurm.matrix.events import EVENTS
from tests.slurm.matrix.table import CAUSES_UNKNOWN, EMPTY, NOTES, OUTCOMES, WAYS, Outcome

__all__ = ["SEEN", "SEEN_FILE", "table"]

SEEN_FILE = Path(__file__).with_name("seen.json")
SEEN: dict[str, int] = json.loads(SEEN_FILE.read_text())
"""Steps that were done twice in the run of each cell that `python -m tests.slurm.matrix --record` noted last."""


def table() -> str:
    """Ways across, events down, footnotes below."""
    notes: list[str] = []
    lines = ["| event | cause | " + " | ".join(WAYS) + " |", "| --- | --- |" + " --- |" * len(WAYS)]
    for event in EVENTS.values():
        usual = _usual_cause(event.name)
        cells = [_cell((way, event.name), usual, notes) for way in WAYS]
        lines.append(f"| {event.words} | {usual} | {' | '.join(cells)} |")
    footnotes = [f"{number}. {text}" for number, text in enumerate(notes, 1)]
    return "\n".join([*lines, "", *footnotes]) + "\n"


def _usual_cause(event: str) -> str:
    return next(OUTCOMES[way, event].causes[0] for way in WAYS if (way, event) in OUTCOMES)


def _cell(cell: tuple[str, str], usual: str, notes: list[str]) -> str:
    marks = "".join(f"<sup>{_number(text, notes)}</sup>" for text in _texts(cell))
    if cell in EMPTY:
        return f"–{marks}"
    found = OUTCOMES[cell]
    other = f", {found.causes[0]}" if found.causes[0] not in (usual, "done") else ""
    return f"{_fate(found, SEEN.get(':'.join(cell)))}{other}{marks}"


def _texts(cell: tuple[str, str]) -> list[str]:
    return [texts[cell] for texts in (EMPTY, CAUSES_UNKNOWN, NOTES) if cell in texts]


def _number(text: str, notes: list[str]) -> int:
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def _fate(found: Outcome, seen: int | None) -> str:
    if found.causes == ("done",):
        return "goes on"
    figure = "" if seen is None else f" ({seen} seen)"
    saved = "nothing lost" if found.lost == 0 else f"≤ {found.lost} lost{figure}"
    return f"{'back' if found.state == 'done' else 'ends'}, {saved}"
