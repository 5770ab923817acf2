"""docs/comparison.json: what was measured, with which versions, when. Knows nothing of how."""

from __future__ import annotations

import datetime as dt
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.peers.cases import Case
from benchmarks.peers.contenders import CONTENDERS, ROOT

FILE = ROOT / "docs" / "comparison.json"
Records = dict[str, dict[str, list[dict[str, Any]]]]
"""By contender, by case, a dict for each repeat."""


def versions() -> dict[str, str]:
    """Of all that a result depends on."""
    from hpcresume.testing.minislurm.machine import slurm_version

    found = {"slurm": slurm_version(None)}
    for name in sorted({"torch", *(each.distribution for each in CONTENDERS)}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def read() -> Records:
    """What was measured so far."""
    if not FILE.exists():
        return {}
    found: Records = json.loads(FILE.read_text())
    return found


def write(kept: Records) -> None:
    """Atomically; in the order of cases and contenders, a repeat to a line."""
    text = "{\n"
    for number, (contender, cases) in enumerate(sorted(kept.items())):
        text += f' "{contender}": {{\n'
        for place, (case, repeats) in enumerate(sorted(cases.items())):
            lines = ",\n   ".join(json.dumps(each, sort_keys=True) for each in repeats)
            text += f'  "{case}": [\n   {lines}\n  ]{"," if place + 1 < len(cases) else ""}\n'
        text += f" }}{',' if number + 1 < len(kept) else ''}\n"
    new = FILE.with_suffix(".new")
    new.write_text(text + "}\n")
    new.replace(FILE)


def relevant(contender: str, versions: dict[str, str]) -> dict[str, str]:
    """Those versions on which a contender's results depend."""
    own = next(each.distribution for each in CONTENDERS if each.name == contender)
    names = {"slurm", "torch", own} | ({"submitit"} if contender == "resumable" else set())
    return {name: versions[name] for name in sorted(names)}


def missing(kept: Records, contender: str, case: Case, versions: dict[str, str], *, again: bool) -> int:
    """How many repeats are still to be measured."""
    if again:
        return case.repeats
    want = relevant(contender, versions)
    have = [each for each in kept.get(contender, {}).get(case.name, ()) if each["versions"] == want]
    return max(0, case.repeats - len(have))


def forget(kept: Records, cells: set[tuple[str, str]]) -> None:
    """These will be measured again."""
    for contender, case in cells:
        kept.get(contender, {}).pop(case, None)


def add(kept: Records, contender: str, case: str, facts: dict[str, Any], versions: dict[str, str]) -> None:
    """One more repeat; those with other versions go."""
    want = relevant(contender, versions)
    cell = [each for each in kept.setdefault(contender, {}).get(case, ()) if each["versions"] == want]
    date = dt.datetime.now(dt.timezone.utc).date().isoformat()
    kept[contender][case] = [*cell, {**facts, "versions": want, "date": date}]
