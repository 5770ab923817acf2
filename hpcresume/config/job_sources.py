"""Where the values of a job come from: file, then environment, then command line; the later one wins.

Gathers what was given for each key, with its place, and says which one counts. Judges no value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcresume.config.job_leaves import Leaf, leaves, nearest, sections
from hpcresume.config.job_nodes import Node, Problem, parse_yaml, quoted

__all__ = ["PREFIX", "Given", "from_environment", "from_file", "from_options", "variable_of"]

PREFIX = "HPCRESUME_JOB_"
"""`resources.nodes` is HPCRESUME_JOB_RESOURCES_NODES: one rule for every key."""

Given = dict[str, Node]
"""Key → what one source says about it."""

_ELSEWHERE = {
    "stages": ("stages stand in a job file, one job each", "--set stages.NAME.KEY=VALUE, or hpcresume submit job.yaml")
}
"""Keys of a file as a whole → what to say where one job alone is wanted."""
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


@dataclass(frozen=True)
class _Place:
    key: str
    leaf: Leaf


def variable_of(path: str) -> str:
    """The environment variable that sets a key."""
    return PREFIX + path.upper().replace(".", "_")


def from_file(root: Node, problems: list[Problem]) -> Given:
    """What a file says, with problems for keys that do not exist."""
    found: Given = {}
    _section(root, "", found, problems)
    return found


def _section(node: Node, section: str, found: Given, problems: list[Problem]) -> None:
    if node.data is None:
        return
    if not isinstance(node.data, dict):
        problems.append(Problem(node.where, section, "must be a mapping of keys to values", "key: value"))
        return
    for name, child in node.data.items():
        path = f"{section}.{name}" if section else name
        if path in leaves():
            _leaf(leaves()[path], child, found, problems)
        elif path in sections():
            _section(child, path, found, problems)
        else:
            problems.append(_unknown(path, child.where))


def _leaf(leaf: Leaf, node: Node, found: Given, problems: list[Problem]) -> None:
    """A value; of a mapping each entry, so that an option can change one of them."""
    if node.data is None:
        return
    if not leaf.mapping:
        found[leaf.path] = node
    elif not isinstance(node.data, dict):
        problems.append(
            Problem(node.where, leaf.path, "must be a mapping", f"{leaf.path.rpartition('.')[2]}: {{A: b}}")
        )
    else:
        for name, child in node.data.items():
            if _ENTRY.fullmatch(name):
                found[f"{leaf.path}.{name}"] = child
            else:
                what = f"{quoted(name)} is no name: letters, digits and _, no digit first"
                problems.append(Problem(child.where, leaf.path, what))


def _unknown(path: str, where: str) -> Problem:
    section, _, name = path.rpartition(".")
    shown = f"{section}.{quoted(name)[1:-1]}" if section else quoted(name)[1:-1]
    if path.partition(".")[0] in _ELSEWHERE:
        return Problem(where, shown, *_ELSEWHERE[path.partition(".")[0]])
    near = nearest(name, sections().get(section, ()))
    if near:
        return Problem(where, shown, "unknown key", near)
    elsewhere = [each for each in (*leaves(), *sections()) if each.rpartition(".")[2] == name]
    hint = elsewhere[0] if elsewhere else ", ".join(sections().get(section, ()))
    return Problem(where, shown, "unknown key", hint)


def from_environment(environ: Mapping[str, str], problems: list[Problem]) -> Given:
    """What HPCRESUME_JOB_… variables say; one that belongs to no key is a problem."""
    known = {variable_of(path): leaf for path, leaf in leaves().items()}
    found: Given = {}
    for name in sorted(each for each in environ if each.startswith(PREFIX)):
        leaf = known.get(name)
        if leaf is None:
            last = name.removeprefix(PREFIX).lower()
            ends = [variable_of(path) for path in leaves() if path.rpartition(".")[2] == last]
            near = ends[0] if ends else nearest(name, [each.lower() for each in known])
            problems.append(Problem(f"${quoted(name)[1:-1]}", "", "belongs to no key", near.upper()))
        else:
            _text(leaf, leaf.path, environ[name], f"${name}", found, problems)
    return found


def from_options(assignments: Sequence[str], problems: list[Problem], *, prefix: str = "") -> Given:
    """What `--set key=value` options say; a later one wins. An empty value takes the key back to its default.

    `prefix` stood before each key, and was taken away: "stages.train.".
    """
    found: Given = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        where = f"--set {quoted(prefix + key)[1:-1]}"
        place = _place(key)
        if not equals:
            problems.append(Problem(where, "", "no value", "--set resources.nodes=4"))
        elif place is None:
            problems.append(_unknown(key, where))
        else:
            _text(place.leaf, place.key, text, where, found, problems)
    return found


def _place(key: str) -> _Place | None:
    if key in leaves():
        return _Place(key, leaves()[key])
    section, _, name = key.rpartition(".")
    leaf = leaves().get(section)
    return _Place(key, leaf) if leaf is not None and leaf.mapping and _ENTRY.fullmatch(name) else None


def _text(leaf: Leaf, key: str, text: str, where: str, found: Given, problems: list[Problem]) -> None:
    """A value given as text: as it is where text is wanted, else read as YAML (`[a, b]`, `4`, `true`)."""
    if text == "" and key == leaf.path:
        found[key] = Node(None, where)
        return
    as_it_is = leaf.is_text or key.startswith("environment.variables.")
    if as_it_is or (leaf.path == "command" and not text.lstrip().startswith("[")):
        found[key] = Node(text, where, text)
        return
    here: list[Problem] = []
    read = parse_yaml(text, where, here)
    problems += [Problem(where, key, each.what, each.hint) for each in here]
    if read is None or here:
        return
    moved = _at(read, where)
    if leaf.mapping and key == leaf.path:
        _leaf(leaf, moved, found, problems)
    else:
        found[key] = moved


def _at(node: Node, where: str) -> Node:
    """The same tree, standing where the option stands."""
    data = node.data
    if isinstance(data, dict):
        data = {name: _at(child, where) for name, child in data.items()}
    elif isinstance(data, tuple):
        data = tuple(_at(child, where) for child in data)
    return Node(data, where, node.text)
