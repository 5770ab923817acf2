"""Imports point down: the order of the layers in docs/ARCHITECTURE.md, lazy imports included."""

from __future__ import annotations

import graphlib

import pytest

from tests.architecture.tree import imports, modules

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"cli", "__main__"}),
    frozenset({"testing"}),
    frozenset({"integrations"}),
    frozenset({"ops"}),
    frozenset({"submit", "launch", "session", "observe", "emulate"}),
    frozenset({"slurm", "checkpoint"}),
    frozenset({"config", "comm", "io"}),
    frozenset({"policy"}),
    frozenset({"model", "errors", "version", "console"}),
)
"""From the top. Names in one layer do not import each other."""

MAY_USE_THE_FACADE = {"testing", "integrations", "cli", "__main__"}
"""`import hpcresume` reaches every layer through its lazy names, so it counts as an arrow to the top."""


def top(module: str) -> str:
    """The first name below the package: its folder or its module."""
    return module.split(".")[1]


def height(name: str) -> int:
    """How far from the bottom a layer is."""
    for index, layer in enumerate(reversed(LAYERS)):
        if name in layer:
            return index
    raise AssertionError(f"hpcresume/{name} has no place in LAYERS: decide which layer it belongs to")


def wrong(module: str, target: str) -> bool:
    """Whether the arrow from `module` to `target` does not point down."""
    if target == "hpcresume":
        return top(module) not in MAY_USE_THE_FACADE
    if top(module) == top(target) or {top(module), top(target)} == {"cli", "__main__"}:
        return False
    return height(top(target)) >= height(top(module))


def arrows() -> list[tuple[str, str]]:
    """(importing module, imported module) for every import inside the package but the façade's own."""
    return [
        (module, target)
        for module in modules()
        if module != "hpcresume"
        for target in imports(module)
        if target.partition(".")[0] == "hpcresume"
    ]


def test_every_folder_has_a_layer():
    for module in modules():
        if module != "hpcresume":
            height(top(module))


def test_no_import_points_up_or_sideways():
    assert [f"{a} → {b}" for a, b in arrows() if wrong(a, b)] == []


def test_every_import_inside_the_package_names_a_module_that_exists():
    assert [f"{a} → {b}" for a, b in arrows() if b not in modules()] == []


def test_there_is_no_import_cycle():
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for module, target in arrows():
        if target != module:
            graph[module].add(target)
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("module", "target", "is_wrong"),
    [
        ("hpcresume.io.files", "hpcresume.session.core", True),
        ("hpcresume.io.files", "hpcresume.comm.ranks", True),
        ("hpcresume.model", "hpcresume.errors", True),
        ("hpcresume.session.core", "hpcresume", True),
        ("hpcresume.ops.demo", "hpcresume.testing.faults", True),
        ("hpcresume.cli.demo", "hpcresume.ops.demo", False),
        ("hpcresume.session.core", "hpcresume.session.track", False),
        ("hpcresume.checkpoint.save", "hpcresume.io.files", False),
    ],
)
def test_the_rule_itself_tells_up_from_down(module, target, is_wrong):
    assert wrong(module, target) is is_wrong
