"""Putting a loaded state into a live one, in place: first every difference is named, then everything is copied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpcresume.checkpoint import arrays
from hpcresume.checkpoint.tree import Key, path_name, path_text
from hpcresume.errors import ModelChangedError, WorldSizeError
from hpcresume.model import EveryRank, GlobalSlice, RankLocal

__all__ = ["differences", "fill", "find_slices"]

_NAMED = 20
"""Differences that are spelled out; the rest is counted."""


class _Differences:
    def __init__(self) -> None:
        self.missing: list[str] = []
        self.extra: list[str] = []
        self.reshaped: list[str] = []
        self.unwritable: list[str] = []

    def text(self) -> str:
        parts = []
        named = {
            "missing": self.missing,
            "extra": self.extra,
            "reshaped": self.reshaped,
            "cannot be filled": self.unwritable,
        }
        for label, found in named.items():
            if found:
                more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
                parts.append(f"{label}: {', '.join(found[:_NAMED])}{more}")
        return "; ".join(parts)


def _unwrap(value: Any) -> Any:
    if isinstance(value, RankLocal):
        return value.value
    return value.array if isinstance(value, GlobalSlice) else value


def _children(value: Any) -> dict[Key, Any] | None:
    if isinstance(value, dict):
        return value
    if type(value) in (list, tuple):
        return dict(enumerate(value))
    return None


def find_slices(target: Any, path: tuple[Key, ...] = ()) -> dict[str, GlobalSlice]:
    """The slices of global arrays in a live state, by tensor name."""
    if isinstance(target, GlobalSlice):
        return {path_name(path): target}
    found = {}
    for key, child in (_children(target) or {}).items():
        found.update(find_slices(child, (*path, key)))
    return found


def differences(target: Any, source: Any, generation: str) -> None:
    """Refuse a live state that does not fit the loaded one.

    Raises:
        ModelChangedError: names what is missing from the generation, extra in it, reshaped, and what cannot be filled.
        WorldSizeError: a rank-local value was saved by another number of ranks.
    """
    found = _Differences()
    _compare(target, source, (), found, generation)
    text = found.text()
    if text:
        raise ModelChangedError(
            f"the state does not fit the generation: {text}",
            where=generation,
            hint="build the same model, or load without into= and map the tensors yourself",
        )


def _compare(target: Any, source: Any, path: tuple[Key, ...], found: _Differences, generation: str) -> None:
    if isinstance(source, EveryRank):
        raise WorldSizeError(
            f"rank-local state was saved by {len(source)} ranks, which are not as many as now",
            where=f"{generation}: {path_text(path)}",
            hint=f"run on {len(source)} ranks, or load without into= to get every rank's value",
        )
    target = _unwrap(target)
    ours, theirs = _children(target), _children(source)
    if ours is not None and theirs is not None:
        _compare_children(ours, theirs, path, found, generation)
    elif arrays.is_array(target) and arrays.is_array(source):
        here, saved = arrays.describe(target), arrays.describe(source)
        if here[1:] != saved[1:]:
            found.reshaped.append(f"{path_text(path)} (saved {saved[1]} {saved[2]}, here {here[1]} {here[2]})")
        elif problem := arrays.unwritable(target):
            found.unwritable.append(f"{path_text(path)} ({problem})")
    elif (ours is None) != (theirs is None) or arrays.is_array(target) != arrays.is_array(source):
        found.reshaped.append(f"{path_text(path)} (saved {type(source).__name__}, here {type(target).__name__})")


def _compare_children(
    ours: dict[Key, Any], theirs: dict[Key, Any], path: tuple[Key, ...], found: _Differences, generation: str
) -> None:
    found.missing += _texts(path, (key for key in ours if key not in theirs))
    found.extra += _texts(path, (key for key in theirs if key not in ours))
    for key, child in ours.items():
        if key in theirs:
            _compare(child, theirs[key], (*path, key), found, generation)


def _texts(path: tuple[Key, ...], keys: Iterable[Key]) -> list[str]:
    return [path_text((*path, key)) for key in keys]


def fill(target: Any, source: Any) -> Any:
    """Copy `source` into `target` in place, and return it; what cannot be changed in place is replaced.

    Call `differences` first.
    """
    if isinstance(target, RankLocal):
        return RankLocal(fill(target.value, source))
    if isinstance(target, GlobalSlice):
        fill(target.array, source)
        return target
    if arrays.is_array(target):
        arrays.copy_into(target, source)
        return target
    if type(target) is tuple:
        return tuple(fill(each, source[i]) for i, each in enumerate(target))
    keys = _children(target)
    if keys is None:
        return source
    for key in list(keys):
        target[key] = fill(target[key], source[key])
    return target
