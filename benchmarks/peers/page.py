"""The tables of docs/COMPARISON.md, made of docs/comparison.json and nothing else. Pure but for reading and writing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.peers import records
from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.contenders import CONTENDERS, ROOT, Contender

PAGE = ROOT / "docs" / "COMPARISON.md"
NOT_APPLICABLE = "–"
Repeats = Sequence[Mapping[str, Any]]


def write_page() -> None:
    """Fill the tables in."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), records.read()), encoding="utf-8")


def filled(text: str, kept: records.Records) -> str:
    """The page with its tables."""
    for name, part in parts(kept).items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, part=part: match[1] + part + match[2], text)
        assert count == 1, name
    return text


def parts(kept: records.Records) -> dict[str, str]:
    """The text of each marked place."""
    head = ["", *(each.title for each in CONTENDERS)]
    disturbed = [case for case in CASES if case.name != "undisturbed"]
    cells = [[case.title, *(outcome(kept, each, case) for each in CONTENDERS)] for case in disturbed]
    samples = [[case.title, *(sample_cell(_of(kept, each, case)) for each in CONTENDERS)] for case in disturbed]
    return {
        "cells": table(head, cells),
        "samples": table(head, [row for row in samples if {*row[1:]} - {"0, 0", NOT_APPLICABLE}]),
        "figures": table(head, figures(kept)),
        "versions": versions_line(kept),
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def outcome(kept: records.Records, contender: Contender, case: Case) -> str:
    """Came back by itself or by which deeds; steps computed again; the same bits or not."""
    repeats = _of(kept, contender, case)
    if case.only and contender.name not in case.only:
        return NOT_APPLICABLE
    if not repeats:
        return "not measured"
    return "; ".join(
        filter(None, (came_back(repeats), damage(repeats, case), steps(repeats), bits(kept, contender, repeats)))
    )


def came_back(repeats: Repeats) -> str:
    """`back`, `back 2 of 3`, and what its user did where it did not come back, with the state in which he found it."""
    alone = [each for each in repeats if each["finished"] and not each["deeds"]]
    ways = sorted({_way(each) for each in repeats if each not in alone})
    if not ways:
        return "back" if len(repeats) == 1 else f"back {len(alone)} of {len(repeats)}"
    if not alone:
        return " or ".join(ways)
    return f"back {len(alone)} of {len(repeats)}, else {' or '.join(ways)}"


def _way(each: Mapping[str, Any]) -> str:
    if not each["finished"]:
        return "**never finished**"
    deeds: list[str] = []
    for state, deed in zip(each["states"], each["deeds"], strict=False):
        words = f"{state} → {deed}"
        deeds = deeds if words in deeds else [*deeds, words]
    times = f" ({len(each['deeds'])} times)" if len(each["deeds"]) > len(deeds) else ""
    return f"**{', '.join(deeds)}**{times}"


def damage(repeats: Repeats, case: Case) -> str:
    """Whether a flipped bit got into the weights."""
    if case.name != "flipped-bit":
        return ""
    return "noticed" if all(each["intact"] for each in repeats) else "**not noticed: the bit is in the final weights**"


def steps(repeats: Repeats) -> str:
    """Steps that had to be computed again, of each repeat."""
    lost = [each["lost"] for each in repeats]
    text = str(lost[0]) if len(set(lost)) == 1 else f"{min(lost)} to {max(lost)}"
    return f"{text} {'step' if text == '1' else 'steps'} again"


def bits(kept: records.Records, contender: Contender, repeats: Repeats) -> str:
    """Whether the end is that of the contender's own undisturbed run."""
    reference = [each["digests"] for each in kept.get(contender.name, {}).get("undisturbed", ())]
    if not reference:
        return "no undisturbed run"
    same = [each["digests"] == reference[0] and len(each["digests"]) == 1 for each in repeats]
    if all(same):
        return "same bits"
    return "other bits" if not any(same) else f"same bits {sum(same)} of {len(same)}"


def sample_cell(repeats: Repeats) -> str:
    """Samples that came too often and too seldom, the most of any repeat."""
    if not repeats:
        return NOT_APPLICABLE
    return f"{max(each['often'] for each in repeats)}, {max(each['seldom'] for each in repeats)}"


def figures(kept: records.Records) -> list[list[str]]:
    """What can be counted beside the cases."""
    away = [
        [each["away"] for case in CASES for each in kept.get(one.name, {}).get(case.name, ()) if _quick(case, each)]
        for one in CONTENDERS
    ]
    rows = [
        ["lines of the program and its batch script", *(str(one.user_lines()) for one in CONTENDERS)],
        ["start of the process to its first step", *_medians(kept, "undisturbed", "first_step", "{:.1f} s")],
        ["a save holds the training up for", *_medians(kept, "undisturbed", "held_up", "{:.2f} s")],
        ["a save with 512 MiB more holds it up for", *_medians(kept, "while-writing", "held_up", "{:.2f} s")],
        ["preemption to the next new step, median", *(f"{median(one):.0f} s" if one else "" for one in away)],
    ]
    return [row for row in rows if any(row[1:])]


def _medians(kept: records.Records, case: str, fact: str, form: str) -> list[str]:
    found = [
        [each[fact] for each in kept.get(one.name, {}).get(case, ()) if each.get(fact) is not None]
        for one in CONTENDERS
    ]
    return [form.format(max(0.0, median(one))) if one else "" for one in found]


def _quick(case: Case, each: Mapping[str, Any]) -> bool:
    """Preemptions after which it came back by itself."""
    return case.name in ("preempted", "other-form") and each["away"] is not None and not each["deeds"]


def versions_line(kept: records.Records) -> str:
    """Every version that was measured, and the dates."""
    found: dict[str, set[str]] = {}
    dates = set()
    for repeats in (repeats for cases in kept.values() for repeats in cases.values()):
        for each in repeats:
            dates.add(each["date"])
            for name, version in each["versions"].items():
                found.setdefault(name, set()).add(version)
    if not dates:
        return ""
    listed = ", ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in sorted(found))
    days = min(dates) if len(dates) == 1 else f"{min(dates)} to {max(dates)}"
    return f"Measured {days} with {listed}.\n"


def _of(kept: records.Records, contender: Contender, case: Case) -> Repeats:
    return kept.get(contender.name, {}).get(case.name, ())
