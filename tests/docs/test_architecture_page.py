"""docs/ARCHITECTURE.md is true to the tree."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.architecture.test_import_direction import LAYERS
from tests.architecture.tree import ROOT, package

PAGE = ROOT / "docs" / "ARCHITECTURE.md"


@pytest.mark.checkout
def test_the_list_of_modules_is_up_to_date():
    ended = subprocess.run([sys.executable, "tools/list_modules.py", "--check"], cwd=ROOT, timeout=60)
    assert ended.returncode == 0, "run: python tools/list_modules.py"


def test_the_layers_are_those_that_the_import_test_enforces():
    drawing = PAGE.read_text().partition("## Layers")[2].partition("| may |")[0]
    drawn = [
        frozenset(re.findall(r"\b([a-z]+)(?:/|\.py)", line.partition("  " * 6)[0]))
        for line in drawing.splitlines()
        if line.startswith("  ") and not line.startswith("  __init__")
    ]
    assert drawn == [layer - {"__main__"} for layer in LAYERS]


def test_every_file_that_the_page_names_exists():
    text = PAGE.read_text().partition("<!-- modules -->")[0]
    named = set(re.findall(r"\b([a-z]+/[a-z_/]+\.py)", text))
    assert named
    assert {name for name in named if not ((package() / name).exists() or (ROOT / name).exists())} == set()
