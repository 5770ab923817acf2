"""The `stages` of a job file: their names, what each changes, and the order that `after` gives them.

Owns the graph and its mistakes (cycles, unknown names), each with its line and column. What a stage may change is any
key of the file, judged by `job`; what a stage means for Slurm is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcresume.config.job_leaves import nearest
from hpcresume.config.job_nodes import Node, Problem, quoted
from hpcresume.config.job_spec import JobSpec

__all__ = ["StageText", "no_such_stage", "order_of", "read_stages", "run_variable", "stage_problems"]

MOST_STAGES = 200
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_RESERVED = frozenset({"attempts", "generations", "launch", "submit", "submitit"})
"""What stands in a run's directory: a stage has a folder beside them, and must not be taken for one."""
_WHOLE = {
    "name": ("the stages share the job's name: each is called NAME-STAGE", "name: at the top of the file"),
    "run": ("the run of a stage is RUN/STAGE", "run: at the top of the file"),
    "stages": ("a stage has no stages of its own", "after: [STAGE]"),
}
"""Keys that are not for a stage → what to say, what to try."""


@dataclass(frozen=True)
class StageText:
    """A stage as it is written.

    Attributes:
        name: its name.
        where: where it stands.
        after: the stages that must be done before it begins.
        own: the keys that it changes.
        places: every place in it, so that a problem there is named by the stage.
    """

    name: str
    where: str
    after: tuple[str, ...]
    own: Node
    places: frozenset[str] = field(default=frozenset(), repr=False)


def run_variable(stage: str) -> str:
    """The variable in which the stages behind this one find its run: HPCRESUME_STAGE_PREPARE_RUN."""
    return f"HPCRESUME_STAGE_{re.sub('[^A-Z0-9]', '_', stage.upper())}_RUN"


def read_stages(node: Node, problems: list[Problem]) -> tuple[StageText, ...]:
    """The stages in an order in which each comes behind those that it waits for; problems are added."""
    if not isinstance(node.data, dict) or not node.data:
        what = "must be a mapping of names to what each stage changes"
        problems.append(Problem(node.where, "stages", what, "train: {after: [prepare], command: python train.py}"))
        return ()
    if len(node.data) > MOST_STAGES:
        problems.append(Problem(node.where, "stages", f"more than {MOST_STAGES} stages", "a job file for each part"))
        return ()
    before = len(problems)
    stages = [_stage(name, child, tuple(node.data), problems) for name, child in node.data.items()]
    _names(stages, problems)
    if len(problems) > before:  # the order could not be judged
        return tuple(stages)
    return _ordered(stages, node.data, problems)


def _stage(name: str, node: Node, names: Sequence[str], problems: list[Problem]) -> StageText:
    key = f"stages.{quoted(name)[1:-1]}"
    data = {} if node.data is None else node.data
    if not isinstance(data, dict):
        problems.append(Problem(node.where, key, "must be a mapping of keys to values", "command: python train.py"))
        data = {}
    for each, (what, hint) in _WHOLE.items():
        if each in data:
            problems.append(Problem(data[each].where, f"{key}.{each}", what, hint))
    after = _after(name, data["after"], names, problems) if "after" in data else ()
    own = {each: value for each, value in data.items() if each != "after" and each not in _WHOLE}
    return StageText(name, node.where, after, Node(own, node.where), _places_of(node))


def _after(name: str, node: Node, names: Sequence[str], problems: list[Problem]) -> tuple[str, ...]:
    key = f"stages.{quoted(name)[1:-1]}.after"
    entries = node.data if isinstance(node.data, tuple) else () if node.data is None else (node,)
    found: list[str] = []
    for index, entry in enumerate(entries):
        place = f"{key}[{index}]" if isinstance(node.data, tuple) else key
        if not isinstance(entry.data, str):
            problems.append(Problem(entry.where, place, f"{quoted(entry.plain())} is no stage", "[prepare]"))
        elif entry.data == name:
            problems.append(Problem(entry.where, place, "a stage cannot wait for itself", "leave it out"))
        elif entry.data not in names:
            hint = nearest(entry.data, [each for each in names if each != name]) or ", ".join(names)[:60]
            problems.append(Problem(entry.where, place, f"there is no stage {quoted(entry.data)}", hint))
        elif entry.data in found:
            problems.append(Problem(entry.where, place, f"names {entry.data} twice", "keep one of them"))
        else:
            found.append(entry.data)
    return tuple(found)


def _names(stages: Sequence[StageText], problems: list[Problem]) -> None:
    taken: dict[str, str] = {}
    for stage in stages:
        shown = quoted(stage.name)[1:-1]
        key, variable = f"stages.{shown}", run_variable(stage.name)
        if not _NAME.fullmatch(stage.name):
            what = f"{quoted(stage.name)} is no stage's name: letters, digits, _ and -, a letter first, at most 64"
            hint = re.sub("[^A-Za-z0-9_-]+", "-", stage.name).strip("-_0123456789")[:64] or "train"
            problems.append(Problem(stage.where, key, what, hint))
        elif stage.name in _RESERVED:
            what = "a run has a folder of this name"
            problems.append(Problem(stage.where, key, what, f"{stage.name}-stage"))
        elif variable in taken:
            what = f"is too like {taken[variable]}: both would be {variable}"
            problems.append(Problem(stage.where, key, what, "another name"))
        taken.setdefault(variable, stage.name)


def _ordered(stages: Sequence[StageText], nodes: Mapping[str, Node], problems: list[Problem]) -> tuple[StageText, ...]:
    by_name = {stage.name: stage for stage in stages}
    order, cycle = order_of({stage.name: stage.after for stage in stages})
    if cycle:
        first = by_name[cycle[0]]
        data = nodes[first.name].data
        where = data["after"].where if isinstance(data, dict) and "after" in data else first.where
        path = " waits for ".join((*cycle, cycle[0]))
        problems.append(Problem(where, f"stages.{first.name}.after", f"a circle: {path}", "take one of them out"))
    return tuple(by_name[name] for name in order)


def order_of(after: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names, each behind those that it waits for, else as they are given; and a circle among those that are left.

    The circle begins with the first name of the mapping that is part of it.
    """
    order: list[str] = []
    left = dict(after)
    while ready := next((name for name, others in left.items() if not set(others) & set(left)), None):
        order.append(ready)
        del left[ready]
    return tuple(order), _circle(left)


def _circle(left: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Every name here waits for another one here: following them leads back."""
    if not left:
        return ()
    path: list[str] = []
    name = next(iter(left))
    while name not in path:
        path.append(name)
        name = next(each for each in left[name] if each in left)
    found = path[path.index(name) :]
    begin = min(range(len(found)), key=lambda i: list(left).index(found[i]))
    return tuple(found[begin:] + found[:begin])


def no_such_stage(assignment: str, names: Sequence[str]) -> Problem:
    """What is wrong with `--set stages.NAME.KEY=VALUE` when the file has no such stage."""
    key = assignment.partition("=")[0]
    name = key.split(".")[1]
    where, hint = f"--set {quoted(key)[1:-1]}", nearest(name, names) or ", ".join(names)[:60]
    return Problem(where, f"stages.{quoted(name)[1:-1]}", f"there is no stage {quoted(name)}", hint)


def stage_problems(stage: StageText, spec: JobSpec) -> list[Problem]:
    """What a job may ask for and a stage may not; keys as in the file's top level."""
    found = []
    if spec.function is not None:
        what = "a stage is a command: submitit, which starts functions, knows no stages"
        found.append(Problem(stage.where, "function", what, "command: python -m package.module"))
    if spec.resources.array is not None:
        what = "an array cannot be a stage: its tasks are runs of their own"
        found.append(Problem(stage.where, "resources.array", what, "a stage for each, or a job file for the array"))
    for index, option in enumerate(spec.resources.options):
        if option.startswith(("--dependency", "--kill-on-invalid-dep")):
            what = "what a stage waits for is said by its after:"
            found.append(Problem(stage.where, f"resources.options[{index}]", what, "after: [STAGE]"))
    return found


def _places_of(node: Node) -> frozenset[str]:
    """Every place in a tree."""
    children = node.data.values() if isinstance(node.data, dict) else node.data if isinstance(node.data, tuple) else ()
    return frozenset({node.where}.union(*(_places_of(child) for child in children)))
