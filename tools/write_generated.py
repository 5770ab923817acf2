"""Writes what is made from the package itself: sbatch_templates/, the JSON schema of job.yaml, and its table of keys.

With --check nothing is written, and the exit code says whether all of it is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hpcresume.config.job_reference import reference
from hpcresume.config.job_schema import SCHEMA_FILE, schema_text
from hpcresume.submit.plain import plain_scripts

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "JOB_YAML.md"
KEYS = "<!-- keys -->\n"


def main() -> int:
    """Write or check; 1 when the check fails."""
    wanted = {ROOT / "sbatch_templates" / name: text for name, text in plain_scripts().items()}
    wanted[SCHEMA_FILE] = schema_text()
    wanted[PAGE] = PAGE.read_text(encoding="utf-8").partition(KEYS)[0] + KEYS + reference()
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" not in sys.argv[1:]:
            path.write_text(wanted[path], encoding="utf-8")
    return int("--check" in sys.argv[1:] and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
