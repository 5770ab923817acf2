"""Loads a job: file, environment and command line into one checked `JobSpec`, and says where each value came from.

All problems are found before the first is shown.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.config.job_leaves import Leaf, check_leaf, leaves
from hpcresume.config.job_nodes import Node, Problem, as_node, parse_yaml, quoted
from hpcresume.config.job_rules import broken_rules
from hpcresume.config.job_sources import Given, from_environment, from_file, from_options
from hpcresume.config.job_spec import JobSpec
from hpcresume.config.job_stages import StageText, no_such_stage, read_stages, stage_problems
from hpcresume.errors import ConfigError

__all__ = ["LoadedJob", "Setting", "Stage", "check_job", "load_job", "read_job"]


_PARTNER = {"requeue.warning_lead": "resources.time", "command": "function"}
"""Where to point when a key is wrong by its default: at the other key of the rule."""


@dataclass(frozen=True)
class Setting:
    """One key: its value, who said so, and what that won over.

    Attributes:
        key: `resources.nodes`.
        value: as JSON has it.
        source: `job.yaml:4:3`, `$HPCRESUME_JOB_RESOURCES_NODES`, `--set resources.nodes`, or `default`.
        overrode: (source, value) of what lost, the one with the least say first.
    """

    key: str
    value: Any
    source: str
    overrode: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Stage:
    """One stage of a chain: a job of its own, whose run is RUN/NAME, and the stages that it waits for."""

    name: str
    spec: JobSpec
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedJob:
    """A checked job and where each of its values came from.

    Of a file with stages `spec` is what they have in common, which may be no whole job; `stages` come in an order in
    which each stands behind those that it waits for, and are empty for any other file.
    """

    spec: JobSpec
    settings: tuple[Setting, ...]
    path: Path | None = None
    stages: tuple[Stage, ...] = ()


def load_job(path: Path, *, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> LoadedJob:
    """Read job.yaml, then variables HPCRESUME_JOB_…, then `key=value` settings; the later wins.

    Raises:
        ConfigError: the file cannot be read, or something is wrong; every problem is in it with line and column.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"the job file cannot be read: {error.strerror}"
        hint = f"name the file: {path / 'job.yaml'}" if path.is_dir() else "hpcresume init makes one"
        raise ConfigError(what, where=str(path), hint=hint) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError("the job file is no UTF-8", where=f"{path}:{line}", hint="save it as UTF-8") from error
    loaded = read_job(text, name=str(path), sets=sets, environ=environ)
    return dataclasses.replace(loaded, path=path)


def read_job(
    text: str, *, name: str = "job.yaml", sets: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> LoadedJob:
    """As `load_job`, for a text that stands in no file; `name` is what places begin with.

    Raises:
        ConfigError: something is wrong.
    """
    problems: list[Problem] = []
    root = parse_yaml(text, name, problems)
    if root is not None and not isinstance(root.data, dict):
        problems.append(Problem(root.where, "", "must be a mapping of keys to values", "key: value"))
        root = None
    if root is None:
        raise _error(problems, name)
    if "stages" in root.data:
        return _read_chain(root, name, sets, environ or {}, problems)
    layers = [from_file(root, problems), from_environment(environ or {}, problems), from_options(sets, problems)]
    return _checked(layers, name, problems)


def check_job(given: Mapping[str, Any], *, name: str = "the job") -> JobSpec:
    """As `read_job`, for a description made in Python: the same keys, the same limits, the same words.

    Raises:
        ConfigError: something is wrong; every problem is in it with its key.
    """
    problems: list[Problem] = []
    return _checked([from_file(as_node(given, name, problems), problems)], name, problems).spec


def _read_chain(
    root: Node, name: str, sets: Sequence[str], environ: Mapping[str, str], problems: list[Problem]
) -> LoadedJob:
    """A file with stages: each is checked as the job that it stands for, the top of the file below its own keys."""
    texts = read_stages(root.data["stages"], problems)
    common = Node({key: each for key, each in root.data.items() if key != "stages"}, root.where)
    own_sets = {text.name: [each for each in sets if each.startswith(f"stages.{text.name}.")] for text in texts}
    others = [each for each in sets if not any(each in own for own in own_sets.values())]
    strange = [each for each in others if each.startswith("stages.") and each.count(".") > 1]
    problems += [no_such_stage(each, [text.name for text in texts]) for each in strange]
    others = [each for each in others if each not in strange]
    layers = [from_file(common, problems), from_environment(environ, problems), from_options(others, problems)]
    if not any("name" in given for given in layers):
        problems.append(Problem(name, "name", "is missing", "name: my-run"))
        layers[0]["name"] = Node("unnamed", name)
    here: list[Problem] = []
    spec, settings = _put_together(layers, name, here)
    # What the top lacks, a stage may have; where there are stages, each of them is judged with what it has.
    problems += [each for each in here if not texts and each.key != "command"]
    stages = []
    for text in texts:
        here = []
        prefix = f"stages.{text.name}."
        own = from_file(text.own, here)
        given = from_options([each.removeprefix(prefix) for each in own_sets[text.name]], here, prefix=prefix)
        found, said = _put_together([layers[0], own, *layers[1:], given], text.where, here)
        problems += [_of_stage(text, each) for each in (*here, *stage_problems(text, found))]
        settings += tuple(dataclasses.replace(each, key=prefix + each.key) for each in said if each not in settings)
        whole = {"name": f"{spec.name}-{text.name}", "run": f"{spec.run_directory}/{text.name}"}
        stages.append(Stage(text.name, msgspec.structs.replace(found, **whole), text.after))
    if problems:
        raise _error(list(dict.fromkeys(problems)), name)
    return LoadedJob(spec, settings, stages=tuple(stages))


def _of_stage(text: StageText, problem: Problem) -> Problem:
    """Named by the stage where it stands in the stage; what stands above is everybody's, and is said once."""
    inside = problem.where in text.places or problem.where.startswith(f"--set stages.{text.name}.")
    return dataclasses.replace(problem, key=f"stages.{text.name}.{problem.key}") if inside else problem


def _checked(layers: list[Given], name: str, problems: list[Problem]) -> LoadedJob:
    spec, settings = _put_together(layers, name, problems)
    if problems:
        raise _error(problems, name)
    return LoadedJob(spec, settings)


def _put_together(layers: list[Given], name: str, problems: list[Problem]) -> tuple[JobSpec, tuple[Setting, ...]]:
    values: dict[str, Any] = {}
    settings: list[Setting] = []
    wrong: set[str] = set()
    where = {key: node.where for given in layers for key, node in given.items()}
    for leaf in leaves().values():
        for key in _keys_of(leaf, layers):
            said = [given[key] for given in layers if key in given]
            winner = said[-1] if said else Node(None, "default")
            default, before = {} if leaf.mapping else leaf.default, len(problems)
            value = default if winner.data is None else check_leaf(leaf, winner, key, problems)
            if len(problems) > before:
                wrong.add(key)  # the problem may name a place inside the value
            if winner.data is not None and not (leaf.mapping and key == leaf.path):
                values[key] = value
            shown = msgspec.to_builtins(default) if winner.data is None else winner.plain()
            settings.append(Setting(key, shown, winner.where, tuple((n.where, n.plain()) for n in said[:-1])))
    bad = wrong | {problem.key.partition("[")[0] for problem in problems}
    if "function" in bad:
        bad.add("command")  # whether one of the two is given cannot be judged
    spec = _build(values, name, bad, problems)
    for key, what, hint in broken_rules(spec):
        stem = key.partition("[")[0]
        if stem not in bad:
            problems.append(
                Problem(where.get(key) or where.get(stem) or where.get(_PARTNER.get(stem, ""), name), key, what, hint)
            )
    return spec, tuple(settings)


def _keys_of(leaf: Leaf, layers: list[Given]) -> list[str]:
    """The key itself, or the keys of a mapping's entries in the order in which they were given."""
    if not leaf.mapping:
        return [leaf.path]
    begin = f"{leaf.path}."
    return list(dict.fromkeys(key for given in layers for key in given if key.startswith(begin)))


def _build(values: dict[str, Any], name: str, bad: set[str], problems: list[Problem]) -> JobSpec:
    """The specification; what is wrong was left out, and what is missing is filled, so that more can be checked."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        if key.partition("[")[0] in bad:
            continue
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    if "name" not in tree:
        tree["name"] = "unnamed"
        if "name" not in bad:
            problems.append(Problem(name, "name", "is missing", "name: my-run"))
    if "container" in tree and "image" not in tree["container"]:
        if "container.image" not in bad:
            problems.append(Problem(name, "container.image", "is missing", "image: image.sif"))
        del tree["container"]
    return msgspec.convert(tree, JobSpec)


def _place(problem: Problem) -> tuple[bool, int, int]:
    """In the order of the file, then what stands in no line of it."""
    match = re.search(r":(\d+):(\d+)\Z", problem.where)
    return (False, int(match[1]), int(match[2])) if match else (True, 0, 0)


def _error(problems: list[Problem], name: str) -> ConfigError:
    problems = sorted(problems, key=_place)
    first = problems[0]
    if len(problems) == 1:
        what = f"{first.key}: {first.what}" if first.key else first.what
        return ConfigError(what, where=first.where, hint=first.hint)
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"{len(problems)} problems in the job{lines}", where=quoted(name)[1:-1])
