"""Cells by hand: python -m tests.slurm.matrix [--at-once 4] [--accounting] [--root ROOT] [--keep DIR] [WAY[:EVENT]]…"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.slurm.matrix.bench import Bench
from tests.slurm.matrix.events import EVENTS
from tests.slurm.matrix.table import OUTCOMES, Outcome
from tests.slurm.matrix.ways import WAYS


def main() -> int:
    """Run them and say what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--accounting", action="store_true")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--keep", type=Path)
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
        bench.run(
            cells, lambda way, event: OUTCOMES.get((way, event), nothing), say=lambda line: print(line, flush=True)
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
