"""The table of docs/SLURM.md is the one that a real cluster is compared with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_is_up_to_date() -> None:
    ended = subprocess.run([sys.executable, "tools/write_slurm_table.py", "--check"], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 0, "run: python tools/write_slurm_table.py"
