"""Every way to start a training, met by every event, on a real cluster: each cell ends as the table says.

The cells of a way run side by side, each on nodes of its own: they mostly wait. One by hand, with the files that it
leaves: `python -m tests.slurm.matrix --keep DIR srun:node-off`.
"""

from __future__ import annotations

import os

import pytest

from hpcresume.testing.minislurm.machine import missing_programs
from tests.slurm.cluster import root_2411, skip_without_slurm
from tests.slurm.matrix.bench import Bench, Found
from tests.slurm.matrix.events import EVENTS
from tests.slurm.matrix.table import CAUSES_UNKNOWN, CI, CI_24_11, CI_ACCOUNTED, EMPTY, ON_24_11, OUTCOMES, WAYS
from tests.support.lacking import cannot, needed

AT_ONCE = int(os.environ.get("HPCRESUME_MATRIX_AT_ONCE", "4"))
"""How many cells run at the same time; each is two or three busy processes now and then."""
LARGEST = 8
"""Cells of one test; more would make it too long for one worker."""


def _batches() -> list[object]:
    batches = []
    for way in WAYS:
        every = [(way, event) for event in EVENTS if (way, event) in OUTCOMES]
        chosen, rest = [c for c in every if c in CI], [c for c in every if c not in CI]
        batches.append(pytest.param(chosen, False, id=way))
        for number, begin in enumerate(range(0, len(rest), LARGEST), 1):
            part = rest[begin : begin + LARGEST]
            batches.append(pytest.param(part, False, id=f"{way}-{number}", marks=pytest.mark.full))
        batches.append(pytest.param(every, True, id=f"{way}-accounting", marks=pytest.mark.full))
    return batches


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("cells", "accounting"), _batches())
def test_each_event_ends_each_way_as_the_table_says(
    cells: list[tuple[str, str]], accounting: bool, slurm_name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _run(cells, accounting, slurm_name, tmp_path_factory)


@pytest.mark.timeout(600)
def test_the_telling_ones_end_so_on_24_11_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    """CI runs the whole selection on the installed Slurm; these are where the versions differ most."""
    _run(list(CI_24_11), False, "24.11", tmp_path_factory)


@pytest.mark.timeout(600)
def test_one_of_each_way_ends_so_with_accounting_too(slurm_name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """CI runs the selection without accounting; `make test-slurm-full` runs every cell with it."""
    _run(list(CI_ACCOUNTED), True, slurm_name, tmp_path_factory)


def _run(
    cells: list[tuple[str, str]], accounting: bool, slurm_name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    skip_without_slurm()
    missing = missing_programs(accounting=accounting)
    if missing:
        cannot(f"no accounting here: {', '.join(missing)} missing; `make test-slurm` installs them where it may")
    ways = {way for way, _ in cells}
    if {"submitit", "array"} & ways:
        needed("submitit")
    if "torchrun" in ways:
        needed("torch")
    root = root_2411() if slurm_name == "24.11" else None
    bench = Bench(tmp_path_factory.mktemp("m"), at_once=AT_ONCE, accounting=accounting, root=root)
    expected = {**OUTCOMES, **ON_24_11} if slurm_name == "24.11" else OUTCOMES
    found = bench.run(cells, lambda way, event: expected[way, event])
    assert set(found) == set(cells)
    _tell(found, accounting)
    wrong = {":".join(cell): (each.outcome, expected[cell]) for cell, each in found.items()
             if each.outcome is not None and each.outcome != expected[cell]}  # fmt: skip
    trouble = "\n".join(f"{':'.join(cell)}: {each.trouble}" for cell, each in found.items() if each.trouble)
    assert not trouble, trouble
    assert not wrong, "\n".join(f"{cell}:\n  found  {this}\n  wanted {that}" for cell, (this, that) in wrong.items())
    neighbours = {":".join(cell): each.neighbour for cell, each in found.items() if cell[0] == "array"}
    assert set(neighbours.values()) <= {"undisturbed"}, neighbours


def _tell(found: dict[tuple[str, str], Found], accounting: bool) -> None:
    """One line about the causes, and what the cluster itself refused."""
    right = sum(
        each.outcome is not None and each.outcome.causes == OUTCOMES[cell].causes for cell, each in found.items()
    )
    unknown = sum(cell in CAUSES_UNKNOWN for cell in found)
    seconds = sum(each.seconds for each in found.values())
    how = f"accounting {'on' if accounting else 'off'}"
    print(f"{right} of {len(found)} causes right, {unknown} unknown as listed ({how}); {seconds:.0f} s of cells")
    for cell, each in found.items():
        if each.words:
            print(f"{':'.join(cell)}: Slurm says: {each.words}")


def test_the_table_is_whole() -> None:
    """Nearly every cell runs, CI meets every way and every event, and a cause is unknown only where that is listed."""
    cells = {(way, event) for way in WAYS for event in EVENTS}
    assert set(OUTCOMES) | set(EMPTY) == cells
    assert not set(OUTCOMES) & set(EMPTY)
    assert len(EMPTY) <= len(cells) / 10
    assert set(OUTCOMES) >= CI
    assert set(OUTCOMES) >= set(CI_24_11)
    assert {way for way, _ in CI} == {way for way, _ in CI_ACCOUNTED} == set(WAYS)
    assert set(OUTCOMES) >= set(CI_ACCOUNTED)
    assert {event for _, event in CI} == set(EVENTS)
    assert {cell for cell, outcome in OUTCOMES.items() if "unknown" in outcome.causes} == set(CAUSES_UNKNOWN)
