"""Takes the fenced code blocks out of a Markdown file, each with the reason for not running it, if it has one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is where it begins."""

    language: str
    text: str
    reason: str
    line: int


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a file."""
    whole = path.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["text"], (m["reason"] or "").strip(), whole[: m.start()].count("\n") + 1)
        for m in FENCE.finditer(whole)
    ]
