"""Cells by hand.

python -m tests.slurm.matrix [--at-once 4] [--accounting] [--root ROOT] [--keep DIR] [--record] [WAY[:EVENT]]…
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.slurm.matrix.bench import Bench, Found
from tests.slurm.matrix.events import EVENTS
from tests.slurm.matrix.page import SEEN, SEEN_FILE
from tests.slurm.matrix.table import OUTCOMES, Outcome
from tests.slurm.matrix.ways import WAYS


def main() -> int:
    """Run them and say what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--accounting", action="store_true")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--record", action="store_true", help="note the steps that were lost, for docs/SLURM.md")
    parser.add_argument("cells", nargs="*")
    given = parser.parse_args()
    every = [(way, event) for way in WAYS for event in EVENTS]
    wanted = set(given.cells)
    cells = [(way, event) for way, event in every if not wanted or wanted & {f"{way}:", f":{event}", f"{way}:{event}"}]
    nothing = Outcome("", (), 0, None, "", "no such words")
    with tempfile.TemporaryDirectory(prefix="m-") as folder:
        base = given.keep or Path(folder)
        base.mkdir(exist_ok=True, parents=True)
        bench = Bench(base, at_once=given.at_once, accounting=given.accounting, root=given.root)
        found = bench.run(
            cells, lambda way, event: OUTCOMES.get((way, event), nothing), say=lambda line: print(line, flush=True)
        )
    if given.record:
        _record(found)
    return 0


def _record(found: Mapping[tuple[str, str], Found]) -> None:
    """Note how many steps were done twice, for the page: where that may be some, and the record knows of the end."""
    seen = dict(SEEN)
    for cell, each in found.items():
        wanted = OUTCOMES[cell]
        known = each.outcome is not None and each.outcome.lost == wanted.lost and wanted.causes != ("unknown",)
        if known and wanted.lost and each.outcome is not None:
            seen[":".join(cell)] = each.outcome.lost_seen or 0
    SEEN_FILE.write_text(json.dumps(dict(sorted(seen.items())), indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
