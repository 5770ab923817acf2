"""The generators: captured, restored, derived for another world size, and left alone by what is not training."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch

from hpcresume.checkpoint import tree
from hpcresume.session import rng
from tests.session.scripts import run_script


def numbers():
    return (
        random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), torch.rand(3).tolist(),
        torch.randn(()).item(),
    )  # fmt: skip


def through_the_tree(state):
    """What becomes of a state on its way to disk and back."""
    structure, leaves = tree.flatten(state)
    return tree.unflatten(structure, lambda i: leaves[i].value)


@pytest.mark.parametrize("draws", [0, 1, 2, 3, 700])
def test_restored_generators_go_on_with_the_very_next_number(draws):
    for _ in range(draws):
        random.gauss(0, 1)
        np.random.normal()
        torch.randn(())
    saved = through_the_tree(rng.capture())
    expected = [numbers() for _ in range(3)]
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert rng.restore(saved) == []
    assert [numbers() for _ in range(3)] == expected


def test_another_bit_generator_behind_numpys_global_one_is_kept():
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(5))
        saved = through_the_tree(rng.capture())
        expected = np.random.random(3).tolist()
        assert rng.restore(saved) == []
        assert np.random.random(3).tolist() == expected
    finally:
        np.random.set_bit_generator(before)


def test_a_block_that_draws_leaves_the_generators_where_they_were():
    saved = rng.capture()
    expected = numbers()
    rng.restore(saved)
    with pytest.raises(ValueError, match="out"), rng.kept():
        rng.seed_on_host(1)
        numbers()
        raise ValueError("out")
    assert numbers() == expected


def test_derived_seeds_depend_on_state_step_rank_and_world_size_and_on_nothing_else():
    state = rng.capture()
    cases = {(s, r, w): rng.derive(state, step=s, rank=r, world_size=w) for s in (1, 2) for r in (0, 1) for w in (2, 3)}
    assert len(set(cases.values())) == 8
    assert rng.derive(through_the_tree(state), step=1, rank=0, world_size=2) == cases[1, 0, 2]
    random.random()
    assert rng.derive(rng.capture(), step=1, rank=0, world_size=2) != cases[1, 0, 2]


def test_a_seed_sets_all_generators():
    rng.seed_all(b"x" * 32)
    first = numbers()
    rng.seed_all(b"x" * 32)
    assert numbers() == first
    rng.seed_all(b"y" * 32)
    assert all(a != b for a, b in zip(first, numbers(), strict=True))


FIRST_SAMPLES = """
import sys
import hpcresume as hr
import numpy as np
assert "numpy.random" not in sys.modules, "numpy 2 loads it when it is first used"

class Noisy:
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return float(np.random.random())

with hr.session(sys.argv[1]) as s:
    stream = s.batches(Noisy(), 2, seed=5, shuffle=False, collate_fn=list)
    for step in s.steps(2):
        print(*next(stream))
assert "torch" not in sys.modules
"""


def test_augmentation_is_seeded_from_the_very_first_sample_of_a_fresh_process(tmp_path):
    """Nobody has loaded numpy.random before; what it is seeded with stands in the docstring of `batches`."""
    done = [run_script(tmp_path, FIRST_SAMPLES, str(tmp_path / name)) for name in ("one", "two")]
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    expected = []
    for k in range(4):
        seed = int.from_bytes(hashlib.blake2b(f"5:{k}".encode(), digest_size=8).digest(), "little")
        expected.append(float(np.random.RandomState(seed & 0xFFFFFFFF).random_sample()))
    for each in done:
        assert [float(word) for word in each.stdout.split()] == expected


STATES = """
import sys
import hpcresume as hr
import numpy as np
assert "numpy.random" not in sys.modules
with hr.session(sys.argv[1], every="1000 steps") as s:
    s["x"] = 0
    for step in s.steps(6):
        print(step, repr(float(np.random.random())))
        if step == 2 and sys.argv[2] == "stop":
            break
"""


def test_numpys_generator_is_kept_though_it_was_first_used_after_the_restore(tmp_path):
    whole = run_script(tmp_path, STATES.replace("with hr", "np.random.seed(3)\nwith hr"), str(tmp_path / "whole"), "go")
    seeded = STATES.replace("with hr", "if sys.argv[2] == 'stop': np.random.seed(3)\nwith hr")
    cut = [run_script(tmp_path, seeded, str(tmp_path / "cut"), how) for how in ("stop", "go")]
    assert [each.returncode for each in (whole, *cut)] == [0, 75, 0], cut[0].stderr + cut[1].stderr
    assert cut[0].stdout + cut[1].stdout == whole.stdout
    assert len(whole.stdout.splitlines()) == 6
