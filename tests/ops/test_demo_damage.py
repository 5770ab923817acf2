"""The demo's damage: one bit, in a weight, of the newest generation, and verification finds it."""

import numpy as np
import pytest

import hpcresume as hr
from hpcresume.errors import NoGenerationError
from hpcresume.ops.demo.damage import damage_newest


def state(step):
    return {"model": {"w": np.arange(3000, dtype=np.float32) + step, "b": np.zeros(7)}, "other": np.ones(9)}


@pytest.fixture
def run(tmp_path):
    for step in (10, 20):
        hr.save(tmp_path / "run", state(step), step=step)
    return tmp_path / "run"


@pytest.mark.parametrize("seed", range(5))
def test_exactly_one_bit_of_a_weight_of_the_newest_generation_changes(run, seed):
    newest = hr.Generations(run).newest()
    before = (newest.path / "state.h5").read_bytes()
    damage = damage_newest(run, seed)
    after = (newest.path / "state.h5").read_bytes()
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert (damage.generation, changed) == (newest.name, [damage.offset])
    assert before[damage.offset] ^ after[damage.offset] == 1 << damage.bit
    info = newest.tensors[damage.tensor]
    assert damage.tensor in ("model/w", "model/b")
    assert info.offset <= damage.offset < info.offset + info.nbytes
    (found,) = hr.Generations(run).verify(newest).damage
    assert found.tensor == damage.tensor


def test_the_place_is_chosen_by_the_seed(run):
    places = {damage_newest(run, seed) for seed in range(6)}
    assert len(places) == 6


def test_the_only_generation_is_never_damaged(tmp_path):
    hr.save(tmp_path / "run", state(10), step=10)
    with pytest.raises(NoGenerationError):
        damage_newest(tmp_path / "run", 0)
    assert hr.Generations(tmp_path / "run").verify(hr.Generations(tmp_path / "run").newest()).ok
