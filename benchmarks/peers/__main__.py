"""Measures the cells that are not measured yet, and writes docs/comparison.json and the tables of docs/COMPARISON.md.

    make compare                                         what is missing, or was measured with other versions
    make compare COMPARE_ARGS="--case preempted --again"      those again
    python -m benchmarks.peers --page                    the tables alone, from what was measured

Each measurement is a process with a Slurm cluster of its own, several side by side; a result is written as soon as it
is there, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.peers import records
from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.contenders import CONTENDERS, ROOT, Contender
from benchmarks.peers.page import write_page

LIMIT = 900.0
"""Seconds that one measurement may take."""


def main() -> int:
    """Measure, write; 1 when a measurement failed."""
    options = read_options()
    if options.page:
        write_page()
        return 0
    kept = records.read()
    versions = records.versions()
    cells = [
        (contender, case)
        for case in CASES
        for contender in CONTENDERS
        if (not options.case or case.name in options.case)
        and (not options.contender or contender.name in options.contender)
        and (not case.only or contender.name in case.only)
    ]
    # Every cell once, then those a second time that are to be repeated, and so on.
    todo = [
        (contender, case)
        for number in range(max(case.repeats for case in CASES))
        for contender, case in cells
        if number < case.repeats
        and number >= case.repeats - records.missing(kept, contender.name, case, versions, again=options.again)
    ]
    if options.again:
        records.forget(kept, {(contender.name, case.name) for contender, case in todo})
    print(f"{len(todo)} measurements, {options.jobs} at a time", flush=True)
    base = Path(options.keep or tempfile.mkdtemp(prefix="peers-"))
    failures = 0
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(options.jobs) as pool:
            tasks = {pool.submit(measured, contender, case, base): (contender, case) for contender, case in todo}
            for done, task in enumerate(as_completed(tasks), 1):
                contender, case = tasks[task]
                result = task.result()
                failed = result.pop("failed")
                line = failed or f"{result['lost']} steps again, user: {result['deeds'] or 'nothing'}"
                print(f"{done}/{len(todo)} {contender.name} {case.name}: {line}", flush=True)
                failures += bool(failed)
                if not failed:
                    records.add(kept, contender.name, case.name, result, versions)
                    records.write(kept)
    finally:
        if not options.keep:
            shutil.rmtree(base, ignore_errors=True)
    write_page()
    print(f"{time.monotonic() - began:.0f} s; {failures} of {len(todo)} failed")
    return int(failures > 0)


def measured(contender: Contender, case: Case, base: Path) -> dict[str, Any]:
    """One measurement in a process of its own; `failed` says why where it did not come about."""
    folder = Path(tempfile.mkdtemp(prefix=f"{contender.name[:6]}-{case.name[:8]}-", dir=base))
    words = [sys.executable, "-m", "benchmarks.peers.measure", contender.name, case.name, str(folder)]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": f"not within {LIMIT:g} s"}
    if done.returncode != 0:
        return {"failed": done.stderr.strip()[-2000:]}
    (folder / "result.json").write_text(done.stdout)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this one")
    parser.add_argument(
        "--contender", action="append", choices=[each.name for each in CONTENDERS], help="only this one"
    )
    parser.add_argument("--again", action="store_true", help="also what is measured already")
    parser.add_argument("--jobs", type=int, default=4, help="measurements side by side (they mostly wait)")
    parser.add_argument("--keep", help="a short path: keep what the jobs left there")
    parser.add_argument(
        "--page", action="store_true", help="write the page from what was measured, and measure nothing"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
