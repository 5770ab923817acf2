"""Reads the package's own source: modules, what they import, what they define. Imports none of it."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def package() -> Path:
    """The folder of the package under test: the checkout's, or that of an installed wheel."""
    spec = importlib.util.find_spec("hpcresume")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name → file of every module, examples and templates left out."""
    found = {}
    for path in sorted(package().rglob("*.py")):
        parts = path.relative_to(package()).with_suffix("").parts
        if parts[0] in ("examples", "sbatch_templates"):
            continue
        names = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(("hpcresume", *names))] = path
    assert len(found) > 20, "the package was not found"
    return found


@functools.cache
def parsed(module: str) -> ast.Module:
    """The syntax tree of a module."""
    path = modules()[module]
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: str) -> Iterator[str]:
    """Everything a module imports, wherever in it the statement stands; dotted strings handed to importlib too."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(module, node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name in modules() and "." in name:
                yield name


def _imported_from(module: str, node: ast.ImportFrom) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        depth = node.level - (modules()[module].name == "__init__.py")
        parent = module.split(".")[: len(module.split(".")) - depth]
        base = ".".join([*parent, base] if base else parent)
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        # `from hpcresume import session` gives the function of that name, through the façade.
        is_module = submodule in modules() and submodule not in ("hpcresume.session", "hpcresume.submit")
        yield submodule if is_module else base


def exported(module: str) -> list[str]:
    """What a module's `__all__` says, in its order; empty without one."""
    for node in parsed(module).body:
        if isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return []


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt]) -> list[Definition]:
    """The public functions and classes of one level."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]
