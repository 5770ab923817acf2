"""What is proved of a generation, counted unit by unit: what a read-back reads, what a tensor's digest covers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

import hpcresume as hr
from hpcresume.checkpoint import layout, readback
from hpcresume.checkpoint.layout import Unit
from hpcresume.checkpoint.save import SaveOptions, save_generation
from hpcresume.comm.single import SingleRanks
from hpcresume.errors import NoUsableGenerationError, SaveError
from hpcresume.io.files import substituted
from hpcresume.io.paths import RunPaths
from hpcresume.testing.faults import FaultyFiles
from hpcresume.testing.thread_ranks import run_ranks
from tests.checkpoint.runs import begin, new_run

UNIT = 4096
STATE = {"large": np.arange(100 * UNIT // 8), "small": np.arange(3 * UNIT // 8), "tiny": np.arange(2)}
UNITS = {"large": 100, "small": 3, "tiny": 1}
"""With units of a page each."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run with an attempt, and generations of many units."""
    monkeypatch.setattr(layout, "MAX_UNIT_BYTES", UNIT)
    run = new_run(tmp_path / "run")
    begin(run)
    return run


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """Every unit that a read-back reads."""
    units: list[Unit] = []
    original = readback.read_unit

    def recording(fd: int, unit: Unit) -> Any:
        units.append(unit)
        return original(fd, unit)

    monkeypatch.setattr(readback, "read_unit", recording)
    return units


def save(run: RunPaths, read_back: str, ranks: Any = None) -> hr.Generation:
    options = SaveOptions(write_path="posix", read_back=read_back)
    ranks = ranks or SingleRanks()
    return save_generation(run, STATE, step=1, attempt=1, parent=None, ranks=ranks, options=options)


def counts(units: list[Unit]) -> dict[str, int]:
    """How many units of each tensor; the names are in order of the tree."""
    names = dict(enumerate(STATE))
    found = dict.fromkeys(names.values(), 0)
    for unit in units:
        if unit.tensor >= 0:
            found[names[unit.tensor]] += 1
    return found


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_read_back_reads_every_unit_once_and_no_rank_its_own(
    run: RunPaths, read: list[Unit], ranks: int
) -> None:
    results = run_ranks(ranks, lambda each: save(run, "all", each))
    assert {type(result) for result in results} == {hr.Generation}
    assert counts(read) == UNITS
    assert len({unit.offset for unit in read}) == len(read)
    assert sum(unit.nbytes for unit in read) == results[0].path.joinpath("state.h5").stat().st_size


def test_a_sampled_read_back_reads_the_first_unit_of_each_tensor_and_one_in_sixteen(
    run: RunPaths, read: list[Unit]
) -> None:
    assert save(run, "sample").read_back == "sample"
    found = counts(read)
    assert found["large"] == len(range(0, 100, 16))
    assert (found["small"] >= 1, found["tiny"]) == (True, 1)
    assert any(unit.tensor < 0 for unit in read), "HDF5's own bytes too"


def test_a_save_without_read_back_reads_nothing(run: RunPaths, read: list[Unit]) -> None:
    assert save(run, "none").read_back == "none"
    assert read == []


class Flipping(FaultyFiles):
    """A disk that turns one bit of the byte of the data file at `offset`."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        inside = offset <= self.offset < offset + len(data)
        if inside and self._path(fd).endswith("state.h5") and len(data) == UNIT:
            changed = bytearray(data)
            changed[self.offset - offset] ^= 1
            self.fired += 1
            data = memoryview(bytes(changed))
        return super().pwrite(fd, data, offset)


@pytest.mark.parametrize("number", [0, 16, 96])
def test_what_a_sampled_unit_lost_is_found_and_nothing_is_committed(run: RunPaths, tmp_path: Path, number: int) -> None:
    flipping = Flipping(offset_of_large(tmp_path) + number * UNIT + 77)
    with substituted(flipping), pytest.raises(SaveError, match="large came back different"):
        save(run, "sample")
    flipping.assert_fired()
    assert list(run.generations.iterdir()) == []


def test_what_a_unit_outside_the_sample_lost_is_found_by_a_full_read_back_and_by_a_restore(
    run: RunPaths, tmp_path: Path
) -> None:
    flipping = Flipping(offset_of_large(tmp_path) + 5 * UNIT + 77)
    with substituted(flipping), pytest.raises(SaveError, match="large came back different"):
        save(run, "all")
    with substituted(flipping):
        generation = save(run, "sample")
    assert flipping.fired == 2
    assert not hr.Generations(run.root).verify(generation).ok
    with pytest.raises(NoUsableGenerationError, match="large"):
        hr.load(run.root)


def offset_of_large(tmp_path: Path) -> int:
    """Where the array lies in a file of this layout, found in another run."""
    other = new_run(tmp_path / "other")
    begin(other)
    return save(other, "none").tensors["large"].offset


def test_a_tensors_digest_covers_all_of_its_units_and_can_be_computed_from_the_file_alone(run: RunPaths) -> None:
    """As docs/FORMAT.md describes it, with nothing of the package."""
    generation = save(run, "all")
    body = json.loads((generation.path / "manifest.json").read_bytes())["manifest"]
    (file,) = body["files"]
    data = (generation.path / file["name"]).read_bytes()
    for tensor in file["tensors"]:
        size = UNITS[tensor["name"]] * UNIT if tensor["name"] != "tiny" else 16
        begins = range(tensor["offset"], tensor["offset"] + size, UNIT)
        units = [unit_digest(body, file["name"], data, at, tensor["offset"] + size) for at in begins]
        assert len(units) == UNITS[tensor["name"]]
        assert tensor["digest"] == f"xxh3-128:{xxhash.xxh3_128_hexdigest(b''.join(units))}"
    assert {tensor["name"] for tensor in file["tensors"]} == set(STATE)


def unit_digest(body: dict[str, Any], file: str, data: bytes, offset: int, end: int) -> bytes:
    place = f"{body['run_id']}\0{body['step']}\0{body['attempt']}\0{file}\0{offset}"
    seed = xxhash.xxh3_64_intdigest(place.encode())
    return xxhash.xxh3_128_digest(data[offset : min(offset + UNIT, end)], seed=seed)
