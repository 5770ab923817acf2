"""Batch scripts that people copy, wherever they stand: what each must have to come back from an early warning."""

from __future__ import annotations

import re

import pytest

from tests.architecture.tree import ROOT

pytestmark = pytest.mark.checkout  # the templates and examples lie in the checkout's root

PLACES = [
    *sorted(ROOT.glob("sbatch_templates/*.sbatch")),
    *sorted(ROOT.glob("examples/**/*.sbatch")),
    *sorted(ROOT.glob("tests/submit/golden/*.sbatch")),
    *(
        page
        for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md")))
    ),
]


def scripts(text: str) -> list[str]:
    """The whole file, or the blocks of a page."""
    return [text] if text.startswith("#!") else re.findall(r"^```\w*\n(#!.*?)^```", text, re.M | re.S)


WARNED = [
    (place, script)
    for place in PLACES
    for script in scripts(place.read_text())
    if re.search(r"^#SBATCH --signal=B:USR1", script, re.M) and re.search(r"^exec hpcresume launch", script, re.M)
]


def test_the_scripts_are_found():
    found = {place.name for place, _ in WARNED}
    assert {"README.md", "job.sbatch", "srun.sbatch", "torchrun.sbatch", "mpiexec.sbatch", "array.sbatch"} <= found


@pytest.mark.parametrize(("place", "script"), WARNED, ids=[place.name for place, _ in WARNED])
def test_a_warning_before_the_supervisor_listens_does_not_end_the_script(place, script):
    trap, launch = (re.search(pattern, script, re.M) for pattern in (r"^trap '' USR1$", r"^exec hpcresume launch"))
    assert trap is not None, f"{place}: bash dies of a USR1 that comes before `hpcresume launch` has its handlers"
    assert trap.start() < launch.start()
