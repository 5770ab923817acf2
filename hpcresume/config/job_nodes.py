"""YAML text as a tree of values that know where they stand: line and column, variable, or option.

Plain scalars follow YAML 1.2's core schema, so `no` and `04:00:00` stay text. Duplicate keys, tags and keys that are
no text are refused; anchors and merge keys work. Knows nothing of what the values mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from hpcresume.config.job_words import yaml_hint

__all__ = ["Node", "Problem", "as_node", "parse_yaml", "quoted"]

MOST_BYTES = 1 << 20
MOST_NODES = 100_000
"""Of one file, aliases written out: a few nested anchors can otherwise stand for billions."""
DEEPEST = 50

_PLAIN: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?[0-9]{1,18}"), int),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"), float),
)
"""YAML 1.2, 10.3.2 (tag resolution of the core schema), without octal, hexadecimal and non-finite numbers."""


class _Loader(yaml.SafeLoader):
    """Guesses no tag, so that every tag on a node is one that somebody wrote."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:  # noqa: ARG002
        """Nothing is guessed here: `_PLAIN` does it."""
        return ""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, under which key, what, and what to try."""

    where: str
    key: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.where}: {key}{self.what}" + (f" (try: {self.hint})" if self.hint else "")


@dataclass(frozen=True)
class Node:
    """A value and where it stands. `data` is a scalar, a tuple of nodes, or a dict of nodes; `text` a scalar's own."""

    data: Any
    where: str
    text: str = ""

    def plain(self) -> Any:
        """The value alone, as JSON has it."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        return [value.plain() for value in self.data] if isinstance(self.data, tuple) else self.data


def quoted(value: object) -> str:
    """A value for a message: ASCII escapes for what would steer a terminal, at most 60 characters."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_yaml(text: str, name: str, problems: list[Problem]) -> Node | None:
    """The tree of a file, or of the value of an option; None when nothing can be made of it.

    Args:
        text: YAML.
        name: what `where` begins with, a file name.
        problems: what is wrong is added here.
    """
    if len(text) > MOST_BYTES:
        problems.append(Problem(name, "", f"more than {MOST_BYTES} characters"))
        return None
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        said = f"{error.problem or error.context}"
        problems.append(Problem(at, "", f"no YAML: {said}", yaml_hint(f"{said} {error.context}")))
        return None
    except yaml.reader.ReaderError as error:
        line, column = _line_and_column(text, error.position)
        what = f"a character that YAML does not allow, U+{ord(text[error.position]):04X}"
        problems.append(Problem(f"{name}:{line}:{column}", _key_of_line(text, line), what))
        return None
    except RecursionError:
        problems.append(Problem(name, "", "nested too deeply"))
        return None
    return Node({}, name) if root is None else _Reader(name, problems).read(root, "", 0)


def as_node(value: Any, where: str, problems: list[Problem], key: str = "", depth: int = 0) -> Node:
    """The tree of a value made in Python, all of it standing in one place; what is no value of YAML stays as it is.

    Args:
        value: mappings, lists, tuples and scalars.
        where: where all of it stands.
        problems: what is wrong is added here.
        key: of the value itself.
        depth: how deep it lies.
    """
    if depth > DEEPEST:
        problems.append(Problem(where, key.partition(".")[0], "nested too deeply"))
        return Node(None, where)
    if isinstance(value, Mapping):
        strange = [name for name in value if not isinstance(name, str)]
        problems += [Problem(where, key, f"a key must be text, not {quoted(name)}") for name in strange]
        inner = {name: each for name, each in value.items() if isinstance(name, str)}
        return Node(
            {n: as_node(v, where, problems, f"{key}.{n}".lstrip("."), depth + 1) for n, v in inner.items()}, where
        )
    if isinstance(value, list | tuple):
        return Node(tuple(as_node(v, where, problems, f"{key}[{i}]", depth + 1) for i, v in enumerate(value)), where)
    return Node(value, where, str(value))


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _key_of_line(text: str, line: int) -> str:
    found = re.match(r"\s*([A-Za-z_]\w*)\s*:", text.split("\n")[line - 1])
    return found[1] if found else ""


class _Reader:
    """Turns yaml's nodes into ours; remembers problems and how much was read."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self._name = name
        self._problems = problems
        self._count = 0
        self._gave_up = False

    def read(self, node: yaml.Node, key: str, depth: int) -> Node:
        where = self._where(node)
        self._count += 1
        if self._count > MOST_NODES or depth > DEEPEST:
            if not self._gave_up:
                self._report(where, key.partition(".")[0], "nested too deeply, or too much of it by aliases")
            self._gave_up = True
            return Node(None, where)
        self._check_tag(node, key)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, where)
        if isinstance(node, yaml.SequenceNode):
            return Node(tuple(self.read(each, f"{key}[{i}]", depth + 1) for i, each in enumerate(node.value)), where)
        assert isinstance(node, yaml.MappingNode)
        return Node(self._mapping(node, key, depth), where)

    def _scalar(self, node: yaml.ScalarNode, where: str) -> Node:
        text = str(node.value)
        for pattern, convert in _PLAIN if node.style is None else ():
            if pattern.fullmatch(text):
                return Node(convert(text), where, text)
        return Node(text, where, text)

    def _mapping(self, node: yaml.MappingNode, key: str, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for name_node, value_node in node.value:
            where = self._where(name_node)
            if not isinstance(name_node, yaml.ScalarNode):
                self._report(where, key, "a key must be text")
                continue
            name = str(name_node.value)
            path = f"{key}.{name}" if key else name
            if name == "<<" and name_node.style is None:
                merged = {**self._merge(value_node, key, depth), **merged}
                continue
            self._check_tag(name_node, path)
            if name in own:
                self._report(where, path, f"given twice, first at {own[name].where}", "keep one of them")
                continue
            # The place of the key, which is where a person looks; a scalar's own column is on the same line.
            own[name] = replace(self.read(value_node, path, depth + 1), where=where)
        return {**merged, **own}

    def _merge(self, node: yaml.Node, key: str, depth: int) -> dict[str, Node]:
        """The keys that `<<: *other` brings in (YAML's merge key); earlier ones of a list win."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Node] = {}
        for each in nodes:
            read = self.read(each, key, depth + 1)
            if isinstance(read.data, dict):
                found = {**read.data, **found}
            else:
                self._report(read.where, key, "<< takes a mapping or a list of mappings")
        return found

    def _check_tag(self, node: yaml.Node, key: str) -> None:
        if node.tag:
            self._report(self._where(node), key, f"the tag {quoted(node.tag)} is not allowed", "write the plain value")

    def _where(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _report(self, where: str, key: str, what: str, hint: str = "") -> None:
        self._problems.append(Problem(where, key, what, hint))
