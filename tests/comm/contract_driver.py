"""One rank of a contract run: `python contract_driver.py BACKEND DIRECTORY`, started by a launcher.

Leaves `DIRECTORY/<rank>.jsonl`: a line for each check, `[name, what went wrong or ""]`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from hpcresume.comm.choose import opened_ranks
from hpcresume.testing.ranks_contract import run_checks


def main(backend: str, directory: Path) -> None:
    with opened_ranks(backend, os.environ) as ranks, (directory / f"{ranks.rank}.jsonl").open("w") as file:
        run_checks(ranks, lambda name, text: print(json.dumps([name, text]), file=file, flush=True))
    ranks.close()  # a second time, as a finally block might


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
