"""Slurm's short form of lists of names: `n[0-3,7],login`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["compress", "expand", "runs"]

_MOST = 65536
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_NUMBERED = re.compile(r"(.*?)([0-9]+)", re.DOTALL)


def expand(text: str) -> tuple[str, ...]:
    """Every name of a list, in its order.

    Raises:
        ValueError: brackets do not match, a range is none, or there are more than 65536 names.
    """
    names: list[str] = []
    for item in _items(text):
        names += _expand_one(item)
        if len(names) > _MOST:
            raise ValueError("too many names")
    return tuple(names)


def _items(text: str) -> list[str]:
    """Split at commas outside brackets."""
    items, depth, item = [], 0, ""
    for char in text:
        depth += {"[": 1, "]": -1}.get(char, 0)
        if depth not in (0, 1):
            raise ValueError(f"brackets do not match: {text!r}")
        if char == "," and depth == 0:
            items.append(item)
            item = ""
        else:
            item += char
    if depth:
        raise ValueError(f"brackets do not match: {text!r}")
    return [each for each in [*items, item] if each]


def _expand_one(item: str) -> list[str]:
    head, bracket, tail = item.partition("[")
    if not bracket:
        return [item]
    inside, _, tail = tail.partition("]")
    ends = _expand_one(tail) if tail else [""]
    return [f"{head}{number}{end}" for number in _numbers(inside) for end in ends]


def _numbers(text: str) -> list[str]:
    numbers: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"not a range: {part!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= _MOST:
            raise ValueError("too many names")
        numbers += [str(n).zfill(len(match[1])) for n in range(first, last + 1)]
    return numbers


def compress(names: Iterable[str]) -> str:
    """The short form: `n0`, `n[0-3,7]`, `a1,b[2-3]`; the order is that of the prefixes' first appearance."""
    groups: dict[tuple[str, int], list[int]] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is None:
            groups.setdefault((name, -1), [])
        else:
            width = len(match[2]) if match[2].startswith("0") and len(match[2]) > 1 else 0
            groups.setdefault((match[1], width), []).append(int(match[2]))
    return ",".join(_group(prefix, width, sorted(set(numbers))) for (prefix, width), numbers in groups.items())


def _group(prefix: str, width: int, numbers: Sequence[int]) -> str:
    if not numbers:
        return prefix
    texts = [f"{low:0{width}d}" if low == high else f"{low:0{width}d}-{high:0{width}d}" for low, high in runs(numbers)]
    return f"{prefix}{texts[0]}" if len(numbers) == 1 else f"{prefix}[{','.join(texts)}]"


def runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as (first, last) of runs without a hole."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
