"""The keys of a job, one by one: their types, the nearest name of a wrong one, and the check of a single value."""

from __future__ import annotations

import difflib
import functools
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from hpcresume.config.job_nodes import Node, Problem, quoted
from hpcresume.config.job_spec import HIDDEN, JobSpec
from hpcresume.config.job_words import form_hint, in_words, value_hint

__all__ = ["Leaf", "check_leaf", "leaves", "nearest", "sections"]

_HIDDEN = re.compile(f"[{HIDDEN}]")
_HIDDEN_IN_SHELL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_RAW_SHELL = "environment.before_commands"

_WITH_UNIT = frozenset(
    {
        "checkpoint.every",
        "requeue.warning_lead",
        "resources.mem",
        "resources.mem_per_cpu",
        "resources.time",
        "resources.time_min",
    }
)
"""Text for which quotes around a number would not do."""


@dataclass(frozen=True)
class Leaf:
    """A key that holds a value: `resources.nodes`. `mapping` ones hold entries of the user's own names."""

    path: str
    type: Any
    default: Any
    description: str
    kinds: frozenset[str]

    @property
    def mapping(self) -> bool:
        """Are its entries keys of their own (`environment.variables.OMP_NUM_THREADS`)?"""
        return "dict" in self.kinds

    @property
    def is_text(self) -> bool:
        """Takes text and neither numbers nor lists, so that a variable or an option gives it as it is."""
        return self.kinds <= {"str", "NoneType"}


@functools.cache
def leaves() -> dict[str, Leaf]:
    """All keys that hold values, by their path, in the order of the specification."""
    return {leaf.path: leaf for leaf in _leaves(JobSpec, "")}


@functools.cache
def sections() -> dict[str, tuple[str, ...]]:
    """Section → names in it; the file itself is the section ""."""
    found: dict[str, list[str]] = {}
    for path in leaves():
        section, _, name = path.rpartition(".")
        found.setdefault(section, []).append(name)
    found[""] += [section for section in found if section]
    return {section: tuple(names) for section, names in found.items()}


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The known name that is most like this one, or begins like it, or ""."""
    names = {each.lower(): each for each in known}
    begins = [each for each in names if len(name) > 2 and each.startswith(name.lower().rstrip("s"))]
    close = [*difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.55), *begins]
    return names[close[0]] if close else ""


def check_leaf(leaf: Leaf, node: Node, key: str, problems: list[Problem]) -> Any:
    """The value of a key as its type wants it; problems are added, and then the result is not to be used."""
    before = len(problems)
    _check_texts(node, key, problems)
    if len(problems) > before:
        return None
    expected = _entry_type(leaf) if leaf.mapping else leaf.type
    value = node.plain()
    if key.startswith("environment.variables.") and isinstance(value, bool | int | float):
        value = node.text  # as it was written: 1.10 stays 1.10
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        problems.append(_problem(leaf, node, key, str(error), expected))
        return None


def _check_texts(node: Node, key: str, problems: list[Problem]) -> None:
    """Control characters are the one thing that could make a value more than a value, so they go first."""
    if isinstance(node.data, dict):
        for name, child in node.data.items():
            _check_texts(Node(name, child.where), f"{key}.{quoted(name)[1:-1]}", problems)
            _check_texts(child, f"{key}.{quoted(name)[1:-1]}", problems)
    elif isinstance(node.data, tuple):
        for index, child in enumerate(node.data):
            _check_texts(child, f"{key}[{index}]", problems)
    elif isinstance(node.data, str):
        bad = (_HIDDEN_IN_SHELL if key.startswith(_RAW_SHELL) else _HIDDEN).search(node.data)
        if bad:
            what = f"holds the control character U+{ord(bad[0]):04X}"
            folded = node.data.endswith("\n") and not _HIDDEN.search(node.data[:-1])
            hint = ">- instead of >" if folded else "take it out; a value is one line of plain text"
            problems.append(Problem(node.where, key, what, hint))
        elif any("\ud800" <= c <= "\udfff" for c in node.data):
            problems.append(Problem(node.where, key, "is no valid UTF-8", "write it in UTF-8"))


def _problem(leaf: Leaf, node: Node, key: str, message: str, expected: Any) -> Problem:
    """The message of msgspec about one value, with its place and the nearest choice."""
    what, _, place = message.partition(" - at `")
    index = re.match(r"\$\[(\d+)\]", place)
    if index and isinstance(node.data, tuple):
        node, key = node.data[int(index[1])], f"{key}[{index[1]}]"
    choices = _choices(expected)
    if choices:
        near = nearest(str(node.data), choices)
        what = f"{quoted(node.data)} is none of {', '.join(choices)}"
        return Problem(node.where, key, what, near)
    if "matching regex" in what:
        hint = form_hint(leaf.path, str(node.data))
        if node.data == "":
            return Problem(node.where, key, "is empty", hint or "leave it out")
        return Problem(node.where, key, f"{quoted(node.data)} is not of the form wanted", hint or leaf.description)
    what = in_words(what)
    hint = value_hint(leaf.kinds, node.plain(), leaf.description, has_unit=leaf.path in _WITH_UNIT)
    return Problem(node.where, key, f"{what}, not {quoted(node.plain())}" if ", got " not in what else what, hint)


def _choices(expected: Any) -> tuple[str, ...]:
    if get_origin(expected) is Literal:
        return tuple(str(each) for each in get_args(expected))
    inner = get_args(expected)[:1] if get_origin(expected) is Annotated else _members(expected)
    return next((found for each in inner if (found := _choices(each))), ())


def _members(expected: Any) -> tuple[Any, ...]:
    return get_args(expected) if get_origin(expected) in (Union, types.UnionType) else ()


def _entry_type(leaf: Leaf) -> Any:
    return get_args(_bare(leaf.type))[1]


def _bare(expected: Any) -> Any:
    return _bare(get_args(expected)[0]) if get_origin(expected) is Annotated else expected


def _leaves(struct: type[msgspec.Struct], prefix: str) -> list[Leaf]:
    hints = typing.get_type_hints(struct, include_extras=True)
    found: list[Leaf] = []
    for field in msgspec.structs.fields(struct):
        path = prefix + field.name
        hint = hints[field.name]
        inner = _struct_of(hint)
        if inner is not None:
            found += _leaves(inner, f"{path}.")
        else:
            default = None if field.default is msgspec.NODEFAULT else field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            found.append(Leaf(path, hint, default, _description(hint), frozenset(_kinds(hint))))
    return found


def _struct_of(hint: Any) -> type[msgspec.Struct] | None:
    bare = _bare(hint)
    for each in (bare, *map(_bare, _members(bare))):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return each
    return None


def _description(hint: Any) -> str:
    metas = [meta for meta in get_args(hint)[1:] if isinstance(meta, msgspec.Meta) and meta.description]
    return str(metas[-1].description) if metas else ""


def _kinds(hint: Any) -> set[str]:
    bare = _bare(hint)
    members = _members(bare)
    if members:
        return set().union(*(_kinds(each) for each in members))
    if get_origin(bare) is Literal:
        return {"str"}
    origin = get_origin(bare) or bare
    return {"dict" if origin in (dict, Mapping) else origin.__name__}
