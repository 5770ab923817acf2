"""Row 7 of the reliability matrix: every byte of a small generation flipped, every truncation, every bad block.

Each time the damage must be reported: the load falls back to the older generation with a warning that names the bad
one, or, with nothing older, raises a typed error. No byte is without meaning, so loading the right state in silence
counts as a failure too.
"""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hpcresume as hr
from hpcresume.errors import DamagedError, DamageWarning, HpcresumeError, NoUsableGenerationError
from hpcresume.testing.damage import copy_block, flip_bit, flip_byte, swap_blocks, truncate, zero_block
from tests.checkpoint.states import same, tiny_state

FILES = ("manifest.json", "state.h5")


@pytest.fixture
def run(memory_path: Path) -> Path:
    """Two generations, of steps 1 and 2."""
    for step in (1, 2):
        hr.save(memory_path / "run", tiny_state(step), step=step)
    return memory_path / "run"


@pytest.fixture
def lonely(memory_path: Path) -> Path:
    """One generation, of step 2."""
    hr.save(memory_path / "lonely", tiny_state(2), step=2)
    return memory_path / "lonely"


def newest(run: Path) -> Path:
    return hr.Generations(run).list()[-1].path


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Damage done to the file inside the block is undone after it."""
    content = path.read_bytes()
    yield
    path.write_bytes(content)
    assert path.read_bytes() == content


def load_and_judge(run: Path) -> str:
    """What a load of a damaged run did: typed-error, fell-back, or one of the outcomes that must not happen."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loaded = hr.load(run)
        except HpcresumeError as error:
            return "typed-error" if isinstance(error, NoUsableGenerationError | DamagedError) else repr(error)
        except Exception as error:
            return f"UNTYPED {error!r}"
    told = [str(w.message) for w in caught if issubclass(w.category, DamageWarning)]
    step = loaded.generation.step
    if not same(loaded.state, tiny_state(step)):
        return "WRONG LOAD"
    if step == 1:
        return "fell-back" if any("g000000000002-a0001" in text for text in told) else "FELL BACK IN SILENCE"
    return "same state, reported" if told else "NOTICED NOTHING"


def damage_each(run: Path, what: str, places: Callable[[Path], list[int]], act: Callable[[Path, int], bool]) -> Counter:
    """Damage every file of the newest generation at every place, one at a time; count what a load did."""
    outcomes: Counter[str] = Counter()
    for name in FILES:
        path = newest(run) / name
        for place in places(path):
            with restored(path):
                if act(path, place):
                    outcomes[load_and_judge(run)] += 1
    assert load_and_judge(run) == "NOTICED NOTHING", "undamaged again"
    print(f"{what}: {sum(outcomes.values())} times, {dict(outcomes)}")
    return outcomes


def every_byte(path: Path) -> list[int]:
    return list(range(path.stat().st_size))


def every_block(path: Path) -> list[int]:
    return list(range(0, path.stat().st_size, 512))


def test_the_state_is_small_and_all_files_are_known(run: Path) -> None:
    generation = hr.Generations(run).newest()
    assert generation is not None
    assert sum(info.nbytes for info in generation.tensors.values()) <= 4096
    assert sorted(p.name for p in generation.path.iterdir()) == sorted(FILES)


def test_one_flipped_bit_in_any_byte_is_detected_and_an_older_generation_is_loaded(run: Path) -> None:
    size = sum((newest(run) / name).stat().st_size for name in FILES)
    outcomes = damage_each(run, "one bit of every byte flipped", every_byte, lambda p, at: flip_bit(p, at, at % 8))
    assert outcomes == {"fell-back": size}
    assert size > 3000


def test_flipped_bytes_of_an_only_generation_are_a_typed_error(lonely: Path) -> None:
    outcomes = damage_each(lonely, "bytes flipped, nothing older", lambda p: every_byte(p)[::3], flip_byte)
    assert set(outcomes) == {"typed-error"}


def test_every_truncation_is_detected(run: Path) -> None:
    outcomes = damage_each(run, "truncated", every_byte, truncate)
    assert set(outcomes) == {"fell-back"}
    assert outcomes["fell-back"] > 3000


def test_truncations_of_an_only_generation_are_a_typed_error(lonely: Path) -> None:
    outcomes = damage_each(lonely, "truncated, nothing older", lambda p: every_byte(p)[::7], truncate)
    assert set(outcomes) == {"typed-error"}


@pytest.mark.parametrize("more", [1, 511, 4096])
def test_a_file_that_has_grown_is_detected(run: Path, more: int) -> None:
    outcomes = damage_each(run, f"{more} bytes longer", lambda p: [p.stat().st_size + more], truncate)
    assert outcomes == {"fell-back": len(FILES)}


def test_every_zeroed_block_is_detected(run: Path) -> None:
    outcomes = damage_each(run, "blocks zeroed", every_block, zero_block)
    assert set(outcomes) == {"fell-back"}


def test_every_swap_of_two_blocks_is_detected(run: Path) -> None:
    def swap_with_next(path: Path, at: int) -> bool:
        following = at + 512
        return following + 512 <= path.stat().st_size and swap_blocks(path, at, following)

    outcomes = damage_each(run, "blocks swapped", every_block, swap_with_next)
    assert set(outcomes) == {"fell-back"}


def test_every_block_of_the_previous_generation_in_the_same_place_is_detected(run: Path) -> None:
    older = hr.Generations(run).list()[0].path

    def replace(path: Path, at: int) -> bool:
        return copy_block(older / path.name, path, at)

    outcomes = damage_each(run, "blocks of the previous generation", every_block, replace)
    assert set(outcomes) == {"fell-back"}


@pytest.mark.parametrize("names", [("manifest.json",), ("state.h5",), FILES], ids="+".join)
def test_whole_files_of_the_previous_generation_are_detected(run: Path, names: tuple[str, ...]) -> None:
    old, new = (g.path for g in hr.Generations(run).list())
    for name in names:
        shutil.copyfile(old / name, new / name)
    assert load_and_judge(run) == "fell-back"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_detected(run: Path, name: str) -> None:
    (newest(run) / name).unlink()
    assert load_and_judge(run) == "fell-back"


def test_a_generation_copied_from_another_run_is_detected(run: Path, lonely: Path) -> None:
    shutil.rmtree(newest(run))
    shutil.copytree(newest(lonely), run / "generations" / "g000000000002-a0001")
    assert hr.load(lonely).generation.step == 2, "whole where it belongs"
    assert load_and_judge(run) == "fell-back"
    assert "another run" in hr.Generations(run).verify("g000000000002-a0001").damage[0].reason


def test_the_report_names_generation_tensor_and_offset(lonely: Path) -> None:
    generation = hr.Generations(lonely).list()[0]
    info = generation.tensors["weight"]
    flip_byte(generation.path / "state.h5", info.offset + 7)
    (damage,) = hr.Generations(lonely).verify(generation).damage
    assert (damage.generation, damage.tensor, damage.offset) == (generation.name, "weight", info.offset)
    with pytest.raises(DamagedError, match="weight") as caught:
        hr.load(generation)
    assert (caught.value.tensor, caught.value.offset) == ("weight", info.offset)


def test_verify_finds_every_flipped_byte_too(run: Path) -> None:
    generation = hr.Generations(run).list()[-1]
    missed = []
    for name in FILES:
        path = generation.path / name
        for at in every_byte(path)[::7]:
            with restored(path):
                assert flip_byte(path, at)
                if hr.Generations(run).verify(generation).ok:
                    missed.append((name, at))
    assert missed == []
    assert hr.Generations(run).verify(generation).ok


def test_a_mismatch_that_a_second_read_does_not_confirm_is_no_damage(run: Path) -> None:
    """As a bit flipped in the page cache or on the way: the second read comes from the device."""
    from hpcresume.io.files import Files, substituted

    class OnceWrong(Files):
        def __init__(self) -> None:
            self.seen: Counter[int] = Counter()
            self.flipped = 0

        def pread_into(self, fd: int, buffer: memoryview, offset: int) -> int:
            count = super().pread_into(fd, buffer, offset)
            self.seen[offset] += 1
            if self.seen[offset] == 1 and count:
                buffer[0] ^= 1
                self.flipped += 1
            return count

    wrong = OnceWrong()
    with substituted(wrong):
        loaded = hr.load(run)
    assert wrong.flipped > 3
    assert loaded.generation.step == 2
    assert same(loaded.state, tiny_state(2))
