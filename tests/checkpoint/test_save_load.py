"""hr.save and hr.load on one rank: every kind of tensor, loading in place, saving twice, and reading without us."""

from __future__ import annotations

import shutil
import stat
import subprocess
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.errors import (
    ConfigError,
    DamagedError,
    GenerationConflictError,
    ModelChangedError,
    NoGenerationError,
    NoUsableGenerationError,
    StateError,
    UntrackableError,
    WorldSizeError,
)
from hpcresume.model import EveryRank, GlobalSlice, RankLocal
from hpcresume.testing.damage import flip_bit, truncate
from tests.checkpoint.states import bits, same, small_state

TORCH_DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
    "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
]  # fmt: skip
NUMPY_DTYPES = [
    "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "c8", "c16", "G",
    ">i2", ">i4", ">u8", ">f2", ">f4", ">f8", ">c16",
]  # fmt: skip


def patterned(name: str, count: int = 24) -> torch.Tensor:
    """A tensor of this dtype with every bit pattern of its first byte somewhere, NaNs of all sorts included."""
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"this torch knows no {name}")
    if name == "bool":
        return torch.arange(count) % 3 == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls complex32 experimental, once
        size = torch.empty(1, dtype=dtype).element_size()
    raw = (torch.arange(count * size) * 37 + 5).to(torch.uint8)
    return raw.view(dtype)


def round_trip(tmp_path: Path, state: Any) -> Any:
    generation = hr.save(tmp_path / "run", state, step=1)
    assert hr.Generations(tmp_path / "run").verify(generation).ok
    return hr.load(tmp_path / "run").state


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_every_torch_dtype_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    flat = patterned(name)
    state = {"flat": flat, "grid": flat.reshape(4, 6), "zero-size": flat[:0].reshape(0, 3), "0-d": flat[3].clone()}
    found = round_trip(tmp_path, state)
    assert same(found, state)
    assert found["flat"].dtype == flat.dtype
    assert hr.Generations(tmp_path / "run").list()[0].tensors["flat"].dtype == name


def test_the_list_of_torch_dtypes_under_test_is_complete() -> None:
    known = {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}
    sub_byte = {name for name in known if name.startswith(("bits", "quint", "qint", "int1", "int2", "int3", "int4"))}
    sub_byte |= {f"int{n}" for n in range(1, 8)} | {f"uint{n}" for n in range(1, 8)}
    assert known - sub_byte - set(TORCH_DTYPES) - {"int16"} <= {"quint8", "qint8", "qint32"}


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_every_numpy_kind_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    array = (np.arange(24) % 5 - 2).astype(name).reshape(4, 6)
    state = {
        "a": array,
        "0-d": np.array(array[1, 1]),
        "empty": array[:0],
        "f": np.asfortranarray(array),
        "scalar": array[1, 1],
    }
    found = round_trip(tmp_path, state)
    assert same(found, state)
    assert found["a"].dtype == array.dtype


def test_nan_payloads_and_negative_zeros_keep_their_bits(tmp_path: Path) -> None:
    raw = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000, 0x7F800000, 1], dtype=np.uint32)
    state = {"torch": torch.from_numpy(raw.view(np.float32).copy()), "numpy": raw.view(np.float32)}
    assert same(round_trip(tmp_path, state), state)


def test_views_of_every_kind_are_saved_as_what_they_show(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    z = torch.complex(base, base + 1)
    array = np.arange(24).reshape(4, 6)
    state = {
        "transposed": base.t(),
        "strided": base[::2, 1::3],
        "expanded": torch.ones(1).expand(5),
        "flipped": base.flip(0),
        "conj": z.conj(),
        "neg": z.conj().imag,
        "real": z.real,
        "channels-last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(base[:2]),
        "np-t": array.T,
        "np-strided": array[::-1, ::2],
        "np-broadcast": np.broadcast_to(np.float32(3), (2, 2)),
        "np-readonly": np.frombuffer(b"abcd", np.uint8),
    }
    assert state["conj"].is_conj()
    assert state["neg"].is_neg()
    found = round_trip(tmp_path, state)
    assert same(found, state)
    assert type(found["parameter"]) is torch.Tensor


def test_tied_weights_are_one_dataset_with_two_names_and_overlapping_views_are_two(tmp_path: Path) -> None:
    weight = torch.randn(400, 30)
    state = {"emb": {"weight": weight}, "head": {"weight": weight}, "row": weight[3], "again": {"x": [weight]}}
    generation = hr.save(tmp_path / "run", state, step=1)
    infos = generation.tensors
    assert len({infos[name].offset for name in ("emb/weight", "head/weight", "again/x/0")}) == 1
    assert infos["row"].offset != infos["emb/weight"].offset
    assert generation.nbytes < 2 * weight.numel() * 4
    assert same(hr.load(tmp_path / "run").state, state)
    with h5py.File(generation.path / "state.h5") as file:
        assert file["emb/weight"] == file["head/weight"]
    loaded = hr.load(tmp_path / "run").state
    assert loaded["emb"]["weight"].data_ptr() == loaded["head"]["weight"].data_ptr(), "tied again"


def test_loaded_tensors_share_memory_with_nothing_and_can_be_changed(tmp_path: Path) -> None:
    found = round_trip(tmp_path, {"t": torch.zeros(3), "n": np.zeros(3), "z": np.zeros((0, 2))})
    found["t"][0] = 1
    found["n"][0] = 1
    assert same(hr.load(tmp_path / "run").state, {"t": torch.zeros(3), "n": np.zeros(3), "z": np.zeros((0, 2))})


def test_what_is_loaded_owes_nothing_to_what_was_saved(tmp_path: Path) -> None:
    state = small_state(3)
    hr.save(tmp_path / "run", state, step=3)
    state["model"]["weight"].zero_()
    assert same(hr.load(tmp_path / "run").state, small_state(3))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 4 << 20, (4 << 20) + 1, 9 << 20])
def test_sizes_around_the_unit_and_page_bounds(tmp_path: Path, size: int) -> None:
    state = {"a": torch.arange(size, dtype=torch.uint8), "b": np.arange(size % 777)}
    assert same(round_trip(tmp_path, state), state)


def test_ten_thousand_small_tensors(tmp_path: Path) -> None:
    state = {"layers": [{"w": torch.full((3,), float(i))} for i in range(10_000)]}
    generation = hr.save(tmp_path / "run", state, step=1)
    assert len(generation.tensors) == 10_000
    assert same(hr.load(generation).state, state)


def live() -> dict[str, Any]:
    return {
        "model": torch.nn.Linear(3, 2).state_dict(),
        "opt": [{"lr": 0.5, "m": np.zeros(4)}, (torch.zeros(2, 2), 1)],
        "seed": RankLocal(np.zeros(2)),
    }


def test_into_fills_tensors_and_arrays_in_place(tmp_path: Path) -> None:
    source, target = live(), live()
    source["opt"][0]["m"][:] = 7
    hr.save(tmp_path / "run", source, step=1)
    weight, m, t = target["model"]["weight"], target["opt"][0]["m"], target["opt"][1][0]
    loaded = hr.load(tmp_path / "run", into=target)
    assert loaded.state is target
    assert target["model"]["weight"] is weight
    assert target["opt"][0]["m"] is m
    assert target["opt"][1][0] is t
    assert same(target["model"], source["model"])
    assert same(target["opt"], source["opt"])
    assert isinstance(target["seed"], RankLocal)


def test_into_a_live_module_on_a_parameter_that_needs_grad(tmp_path: Path) -> None:
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    hr.save(tmp_path / "run", dict(module.named_parameters()), step=1)
    hr.load(tmp_path / "run", into=dict(other.named_parameters()))
    assert bits(other.weight) == bits(module.weight)
    assert other.weight.requires_grad
    assert other.weight.grad_fn is None


def test_into_takes_numpy_for_torch_and_torch_for_numpy(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", {"a": torch.arange(3.0), "b": np.arange(3)}, step=1)
    target = {"a": np.zeros(3, np.float32), "b": torch.zeros(3, dtype=torch.int64)}
    hr.load(tmp_path / "run", into=target)
    assert same(target, {"a": np.arange(3, dtype=np.float32), "b": torch.arange(3)})


def test_into_non_contiguous_and_conjugated_targets(tmp_path: Path) -> None:
    z = torch.complex(torch.arange(6.0), torch.ones(6)).reshape(2, 3)
    hr.save(tmp_path / "run", {"a": z, "b": z, "c": np.arange(6).reshape(2, 3)}, step=1)
    target = {
        "a": torch.zeros(3, 2, dtype=torch.complex64).t(),
        "b": torch.zeros_like(z).conj(),
        "c": np.zeros((3, 2), int).T,
    }
    hr.load(tmp_path / "run", into=target)
    assert same(target["a"], z)
    assert same(target["b"], z)
    assert same(target["c"], np.arange(6).reshape(2, 3))


CHANGES: dict[str, tuple[Any, list[str]]] = {
    "missing": (lambda s: s["model"].update(new=torch.zeros(1)), ["missing: model['new']"]),
    "extra": (lambda s: s["model"].pop("bias"), ["extra: model['bias']"]),
    "reshaped": (lambda s: s["model"].update(weight=torch.zeros(2, 4)), ["model['weight']", "(2, 3)", "(2, 4)"]),
    "another dtype": (lambda s: s["model"].update(weight=torch.zeros(2, 3).half()), ["float32", "float16"]),
    "shorter list": (lambda s: s["opt"].pop(), ["extra: opt[1]"]),
    "value for tensor": (lambda s: s["model"].update(weight=1.0), ["model['weight']", "Tensor", "float"]),
    "tree for value": (lambda s: s["opt"][0].update(lr={"a": 1}), ["opt[0]['lr']"]),
    "read-only": (lambda s: s["opt"][0]["m"].flags.__setattr__("writeable", False), ["opt[0]['m']", "read-only"]),
    "expanded": (lambda s: s["model"].update(bias=torch.zeros(1).expand(2)), ["model['bias']", "share memory"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_refused_with_every_name_and_nothing_is_touched(tmp_path: Path, change: str) -> None:
    hr.save(tmp_path / "run", live(), step=1)
    target = live()
    act, words = CHANGES[change]
    act(target)
    before = bits(target)
    with pytest.raises(ModelChangedError) as caught:
        hr.load(tmp_path / "run", into=target)
    for word in words:
        assert word in str(caught.value)
    assert bits(target) == before


def test_all_differences_are_named_at_once_and_long_lists_are_cut(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", {"a": {f"x{i}": torch.zeros(1) for i in range(30)}, "w": torch.zeros(2)}, step=1)
    with pytest.raises(ModelChangedError, match="10 more") as caught:
        hr.load(tmp_path / "run", into={"a": {}, "b": 1, "w": torch.zeros(3)})
    assert all(word in str(caught.value) for word in ("missing: b", "extra: a['x0']", "reshaped: w"))


def test_a_tensor_that_cannot_be_filled_for_another_reason_is_still_a_typed_error(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", {"a": torch.zeros(4)}, step=1)
    with torch.inference_mode():
        target = torch.zeros(4)
    with pytest.raises(StateError, match="inference"):
        hr.load(tmp_path / "run", into={"a": target})


OVERLAPPING = [
    torch.zeros(3).as_strided((2, 2), (1, 1)),
    torch.zeros(1, 2).expand(2, 2),
    np.lib.stride_tricks.as_strided(np.zeros(3, np.float32), (2, 2), (4, 4)),
]


@pytest.mark.parametrize("target", OVERLAPPING, ids=["as_strided", "expand", "numpy"])
def test_a_target_whose_elements_share_memory_is_refused_untouched(tmp_path: Path, target: Any) -> None:
    hr.save(tmp_path / "run", {"a": torch.arange(4.0).reshape(2, 2)}, step=1)
    with pytest.raises(ModelChangedError, match="share memory"):
        hr.load(tmp_path / "run", into={"a": target})
    assert not np.any(np.asarray(target))


def test_a_whole_global_array_can_be_cut_on_the_way_in(tmp_path: Path) -> None:
    whole = torch.arange(20.0).reshape(4, 5)
    hr.save(tmp_path / "run", {"w": whole}, step=1)
    part = GlobalSlice(torch.zeros(2, 3), (4, 5), (1, 2))
    hr.load(tmp_path / "run", into={"w": part})
    assert same(part.array, whole[1:3, 2:5])


@pytest.mark.parametrize("start", [(3, 0), (-1, 0), (0, 3), (0,)])
def test_a_slice_that_leaves_the_global_array_is_refused(tmp_path: Path, start: tuple[int, ...]) -> None:
    hr.save(tmp_path / "run", {"w": torch.zeros(4, 5)}, step=1)
    with pytest.raises(StateError, match="w"):
        hr.load(tmp_path / "run", into={"w": GlobalSlice(torch.zeros(2, 3), (4, 5), start)})


def test_saving_the_same_step_and_content_again_returns_the_existing_generation(tmp_path: Path) -> None:
    first = hr.save(tmp_path / "run", small_state(1), step=1)
    files = {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in first.path.iterdir()}
    assert hr.save(tmp_path / "run", small_state(1), step=1) == first
    assert {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in first.path.iterdir()} == files


BASE = {"t": torch.zeros(2), "n": 1, "f": 0.0, "l": [1, 2], "d": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "t": torch.tensor([0.0, -0.0])},
        {**BASE, "t": torch.zeros(2).double()},
        {**BASE, "t": np.zeros(2, np.float32)},
        {**BASE, "n": 2},
        {**BASE, "n": True},
        {**BASE, "n": 1.0},
        {**BASE, "f": -0.0},
        {**BASE, "l": (1, 2)},
        {**BASE, "d": {"b": 2, "a": 1}},
        {**BASE, "x": None},
    ],
    ids=lambda o: str({k: v for k, v in o.items() if v is not BASE.get(k)}),
)
def test_saving_other_content_for_the_same_step_is_a_conflict(tmp_path: Path, other: Any) -> None:
    hr.save(tmp_path / "run", BASE, step=1)
    with pytest.raises(GenerationConflictError, match="g000000000001-a0001"):
        hr.save(tmp_path / "run", other, step=1)
    assert same(hr.load(tmp_path / "run").state, BASE)


@pytest.mark.parametrize("name", ["manifest.json", None])
def test_saving_a_step_whose_generation_is_damaged_is_a_conflict_too(tmp_path: Path, name: str | None) -> None:
    generation = hr.save(tmp_path / "run", small_state(1), step=1)
    (generation.path / "manifest.json").write_bytes(b"")
    if name is None:
        (generation.path / "manifest.json").unlink()
    with pytest.raises(GenerationConflictError, match="damaged"):
        hr.save(tmp_path / "run", small_state(1), step=1)
    assert hr.save(tmp_path / "run", small_state(2), step=2).step == 2


@pytest.mark.parametrize("damage", ["flipped", "shorter", "missing"])
def test_saving_again_does_not_acknowledge_bytes_that_have_gone_bad(tmp_path: Path, damage: str) -> None:
    generation = hr.save(tmp_path / "run", small_state(1), step=1)
    path = generation.path / "state.h5"
    if damage == "flipped":
        flip_bit(path, generation.tensors["model/weight"].offset)
    elif damage == "shorter":
        truncate(path, path.stat().st_size - 1)
    else:
        path.unlink()
    with pytest.raises(GenerationConflictError, match="damaged"):
        hr.save(tmp_path / "run", small_state(1), step=1)


@pytest.mark.parametrize("wrap", [RankLocal, lambda a: GlobalSlice(a, (4,), (0,))], ids=["RankLocal", "GlobalSlice"])
def test_a_wrapper_or_an_array_may_be_the_whole_state(tmp_path: Path, wrap: Any) -> None:
    hr.save(tmp_path / "run", wrap(torch.arange(4.0)), step=1)
    assert same(hr.load(tmp_path / "run").state, torch.arange(4.0))
    target = torch.zeros(4)
    hr.load(tmp_path / "run", into=wrap(target))
    assert same(target, torch.arange(4.0))


def test_load_takes_a_run_or_a_generation(tmp_path: Path) -> None:
    for step in (1, 2):
        hr.save(tmp_path / "run", small_state(step), step=step)
    first = hr.Generations(tmp_path / "run").list()[0]
    assert hr.load(str(tmp_path / "run")).generation.step == 2
    loaded = hr.load(first)
    assert loaded.generation == first
    assert same(loaded.state, small_state(1))


def test_loading_without_verifying_is_possible_and_says_nothing_of_damage(tmp_path: Path) -> None:
    generation = hr.save(tmp_path / "run", {"a": torch.zeros(3)}, step=1)
    flip_bit(generation.path / "state.h5", generation.tensors["a"].offset)
    assert hr.load(generation, verify="none").state["a"][0] != 0
    with pytest.raises(DamagedError):
        hr.load(generation)
    with pytest.raises(ConfigError, match="verify"):
        hr.load(generation, verify="maybe")


def test_a_run_without_generations_says_so(tmp_path: Path) -> None:
    with pytest.raises(UntrackableError):
        hr.save(tmp_path / "run", {"a": {1}}, step=1)
    with pytest.raises(NoGenerationError, match="nothing was ever committed"):
        hr.load(tmp_path / "run")


def test_a_run_that_has_lost_all_its_generations_says_that_they_are_gone(tmp_path: Path) -> None:
    hr.save(tmp_path / "run", {}, step=1)
    shutil.rmtree(tmp_path / "run" / "generations" / "g000000000001-a0001")
    with pytest.raises(NoUsableGenerationError, match="gone"):
        hr.load(tmp_path / "run")


@pytest.mark.parametrize("step", [-1, 10**12, 1.0, True, "1", None], ids=repr)
def test_a_step_that_is_none_is_refused(tmp_path: Path, step: Any) -> None:
    with pytest.raises(ConfigError, match="step"):
        hr.save(tmp_path / "run", {}, step=step)


def test_rank_local_values_of_another_world_size_do_not_fill_a_state(tmp_path: Path) -> None:
    from hpcresume.testing.thread_ranks import run_ranks, unwrap

    unwrap(run_ranks(2, lambda r: hr.save(tmp_path / "run", {"seed": RankLocal(r.rank)}, step=1, comm=r)))
    assert hr.load(tmp_path / "run").state == {"seed": EveryRank((0, 1))}
    with pytest.raises(WorldSizeError, match="2 ranks"):
        hr.load(tmp_path / "run", into={"seed": RankLocal(0)})


def test_files_are_private(tmp_path: Path) -> None:
    generation = hr.save(tmp_path / "run", small_state(1), step=1)
    assert len(list(generation.path.iterdir())) == 2
    for path in (tmp_path / "run").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_equal_content_gives_equal_bytes_but_for_what_names_the_generation(tmp_path: Path) -> None:
    for name in ("one", "two"):
        hr.save(tmp_path / name, small_state(1), step=1)
    paths = [hr.Generations(tmp_path / name).list()[0].path / "state.h5" for name in ("one", "two")]
    one, two = (path.read_bytes() for path in paths)
    ids = [(tmp_path / name / "run.json").read_text().split('"run_id": "')[1][:32].encode() for name in ("one", "two")]
    assert one.count(ids[0]) == 1
    assert one.replace(ids[0], ids[1]) == two


READABLE = {
    "f32": torch.randn(3, 4),
    "f64": torch.randn(2).double(),
    "i64": torch.arange(5),
    "u8": torch.arange(9, dtype=torch.uint8),
    "u16": torch.arange(4).to(torch.uint16),
    "bool": torch.tensor([True, False]),
    "half": torch.randn(3).half(),
    "c64": torch.randn(2, dtype=torch.complex64),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 2),
}


def test_plain_h5py_reads_tensors_by_name_with_equal_values(tmp_path: Path) -> None:
    state = {"model": {**READABLE, "np": np.arange(6, dtype=">i4").reshape(2, 3)}, "a/b": {"": torch.ones(1)}}
    generation = hr.save(tmp_path / "run", state, step=7)
    with h5py.File(generation.path / "state.h5") as file:
        assert (file.attrs["step"], file.attrs["attempt"], file.attrs["format_version"]) == (7, 1, 1)
        for name, tensor in READABLE.items():
            found = file[f"model/{name}"]
            assert found.shape == tuple(tensor.shape)
            assert found[()].tobytes() == tensor.numpy().tobytes(), name
            assert found.chunks is None
            assert found.compression is None
        np.testing.assert_array_equal(file["model/np"][:], np.arange(6).reshape(2, 3))
        assert file["a%2Fb/%"][:].tolist() == [1.0] if "a%2Fb/%" in file else True
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert set(names) == set(generation.tensors)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_plain_h5py_reads_small_floats_with_equal_values(tmp_path: Path, name: str) -> None:
    dtype = getattr(torch, name)
    values = torch.tensor([0.0, 1.0, -1.5, 0.25, 2.0, -4.0]).to(dtype)
    generation = hr.save(tmp_path / "run", {"x": values}, step=1)
    with h5py.File(generation.path / "state.h5") as file:
        np.testing.assert_array_equal(file["x"].astype("f4")[:], values.float().numpy())


def test_h5dump_reads_tensors_by_name(tmp_path: Path) -> None:
    tool = shutil.which("h5dump")
    if tool is None:
        pytest.skip("h5dump is not installed (Debian: hdf5-tools)")
    state = {"model": {**READABLE, "bf16": torch.tensor([0.5, -2.0]).bfloat16()}, "ids": np.arange(4, dtype=np.int32)}
    generation = hr.save(tmp_path / "run", state, step=1)
    path = str(generation.path / "state.h5")
    header = subprocess.run([tool, "-H", path], capture_output=True, text=True, check=True).stdout
    assert all(f'DATASET "{name}"' in header for name in [*READABLE, "bf16", "ids"])
    shown = subprocess.run(
        [tool, "-y", "-w", "0", "-d", "/ids", path], capture_output=True, text=True, check=True
    ).stdout
    assert "0, 1, 2, 3" in shown
    shown = subprocess.run(
        [tool, "-y", "-w", "0", "-d", "/model/bf16", path], capture_output=True, text=True, check=True
    ).stdout
    assert "0.5, -2" in shown
