"""Writes the table of docs/SLURM.md from the one that the conformance suite compares a real cluster with.

With --check nothing is written, and the exit code says whether the page is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.slurm.matrix.page import table  # noqa: E402

PAGE = ROOT / "docs" / "SLURM.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- end of matrix -->"


def main() -> int:
    """Write or check; 1 when the check fails."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}{table()}{END}{after}"
    if "--check" in sys.argv[1:]:
        return int(wanted != text)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
