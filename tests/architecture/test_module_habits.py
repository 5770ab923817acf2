"""Habits that keep the package readable, checked on every module."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.tree import Definition, definitions, exported, imports, modules, parsed

LONGEST = 500

HEAVY: dict[str, set[str]] = {
    "torch": {
        "hpcresume.checkpoint.arrays",  # tensors ↔ bytes
        "hpcresume.comm.torch_dist",  # one of the three backends of ranks
        "hpcresume.integrations.torchrun_agent",  # a program of its own, run by path
        "hpcresume.session.fetching",  # DataLoader workers
        "hpcresume.session.rng",  # its generators
    },
    "h5py": {"hpcresume.checkpoint.skeleton"},
    "mpi4py": {
        "hpcresume.checkpoint.mpiio",
        "hpcresume.comm.mpi",
        "hpcresume.ops.doctor.rank_program",  # a program of its own: an MPI that does not fit aborts its process
    },
}
"""The modules that may import each of these. Adding one is a decision, and so is a line here."""


PURE = {
    "__future__", "bisect", "collections", "dataclasses", "enum", "fractions", "functools", "hashlib", "heapq",
    "hpcresume", "itertools", "math", "numpy", "operator", "re", "signal", "statistics", "types", "typing",
}  # fmt: skip
"""All that policy/ may import: no clock, file, process, thread or environment. (signal: for its numbers.)"""


def test_policy_can_reach_neither_clock_nor_file_nor_process():
    pure = [module for module in modules() if module.startswith("hpcresume.policy")]
    reached = {(module, name.partition(".")[0]) for module in pure for name in imports(module)}
    assert len(reached) > 5
    assert {(m, name) for m, name in reached if name not in PURE} == set()


CHANGES = {
    "fsync",
    "fdatasync",
    "link",
    "mkdir",
    "pwrite",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "truncate",
    "unlink",
}


def test_checkpoint_and_session_change_the_filesystem_only_where_tests_can_inject_faults():
    bypasses = [
        f"{module} line {node.lineno}: os.{node.attr}"
        for module in modules()
        if module.startswith(("hpcresume.checkpoint", "hpcresume.session"))
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Attribute) and node.attr in CHANGES and ast.unparse(node.value) in ("os", "shutil")
    ]
    assert bypasses == []


def test_no_module_is_longer_than_500_lines():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_are_imported_by_the_listed_modules_only(library):
    users = {module for module in modules() if library in {name.partition(".")[0] for name in imports(module)}}
    assert users == HEAVY[library]


def test_every_module_says_what_it_owns():
    assert [name for name in modules() if len(ast.get_docstring(parsed(name)) or "") < 20] == []


def test_every_all_names_all_public_functions_and_classes_and_nothing_twice():
    faults = []
    for module in modules():
        names = exported(module)
        if module == "hpcresume.testing.ranks_contract":
            continue  # its checks are found through the list it exports
        public = {node.name for node in definitions(parsed(module).body)}
        faults += [f"{module}: {name} is not in __all__" for name in sorted(public - set(names))]
        faults += [f"{module}: {name} is in __all__ twice" for name in names if names.count(name) > 1]
    assert faults == []


def test_every_public_function_class_and_method_has_a_docstring():
    assert [f"{m}: {name}" for m in modules() for name in undocumented(parsed(m).body)] == []


def undocumented(body: list[ast.stmt], prefix: str = "") -> list[str]:
    """Names of the public definitions without a docstring, methods of public classes included."""
    found = []
    for node in definitions(body):
        if not ast.get_docstring(node) and not is_exempt(node):
            found.append(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            found += undocumented(node.body, f"{prefix}{node.name}.")
    return found


def is_exempt(node: Definition) -> bool:
    """A setter, an overload, or a protocol's member with `...` for a body: documented elsewhere."""
    if isinstance(node, ast.ClassDef):
        return False
    names = {ast.unparse(decorator) for decorator in node.decorator_list}
    only = node.body[0]
    is_stub = len(node.body) == 1 and isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)
    return is_stub or "overload" in names or any(name.endswith(".setter") for name in names)
