"""Writes the list of modules in docs/ARCHITECTURE.md from the first sentence of each module's docstring.

With --check nothing is written, and the exit code says whether the list is up to date.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- modules -->\n", "<!-- end of modules -->"


def main() -> int:
    """Write or check the list; 1 when the check fails."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = head + BEGIN + listing() + END + tail
    if "--check" in sys.argv[1:]:
        return int(wanted != text)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


def listing() -> str:
    """One table for each folder of the package."""
    package = ROOT / "hpcresume"
    folders = sorted({path.parent for path in package.rglob("*.py")})
    return "\n".join(table(folder) for folder in folders)


def table(folder: Path) -> str:
    """The modules of one folder, the folder itself first."""
    rows = [f"**{folder.relative_to(ROOT).as_posix()}/** {first_sentence(folder / '__init__.py')}\n"]
    others = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    if others:
        rows += ["| module | |", "| --- | --- |"]
        rows += [f"| `{path.name}` | {first_sentence(path)} |" for path in others]
    return "\n".join(rows) + "\n"


def first_sentence(path: Path) -> str:
    """What a module says of itself, up to its first full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return (sentence + stop).strip().replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
