"""docs/JOB_YAML.md is true: its examples load, its table of keys is that of the types."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcresume.config.job import read_job
from hpcresume.config.job_reference import reference
from tests.architecture.tree import ROOT
from tests.docs.blocks import blocks

pytestmark = pytest.mark.checkout
PAGE = ROOT / "docs" / "JOB_YAML.md"


def test_the_table_lists_every_key():
    assert PAGE.read_text().endswith("<!-- keys -->\n" + reference()), "run: python tools/write_generated.py"


def test_the_example_is_a_job():
    texts = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    spec = read_job(texts[0]).spec
    assert (spec.resources.nodes, spec.checkpoint.every) == (2, "20min")


def test_what_is_generated_is_up_to_date():
    done = subprocess.run([sys.executable, "tools/write_generated.py", "--check"], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, "run: python tools/write_generated.py"
