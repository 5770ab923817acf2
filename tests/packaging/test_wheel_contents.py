"""What `pip install` brings, and what it does not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

pytestmark = pytest.mark.checkout


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> set[str]:
    """The names in a freshly built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = out.glob("hpcresume-*-py3-none-any.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_module_the_types_marker_and_the_licence(names):
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hpcresume").rglob("*.py")}
    assert expected <= names
    assert "hpcresume/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("folder", ["examples", "sbatch_templates"])
def test_the_wheel_holds_the_examples_and_templates_inside_the_package(names, folder):
    files = [p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {f"hpcresume/{path.relative_to(ROOT).as_posix()}" for path in files} <= names


def test_the_wheel_holds_nothing_else(names):
    strays = {name for name in names if Path(name).parts[0] != "hpcresume" and ".dist-info/" not in name}
    assert strays == set()
    assert not any("__pycache__" in name for name in names)
