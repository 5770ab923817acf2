"""The state tree: everything that may be saved comes back exactly, everything else is refused with its path."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import struct
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import hpcresume as hr
from hpcresume.checkpoint.tree import MAX_DEPTH, decode_plain, encode_plain, flatten, path_name, path_text, unflatten
from hpcresume.errors import DamagedError, UntrackableError
from hpcresume.model import GlobalSlice, RankLocal
from tests.checkpoint.states import bits, same

HUGE = 7**6000
"""More than 4300 decimal digits: Python refuses to print it."""

HOSTILE = ["/", "", ".", "..", "%", "%2F", "@rank00000", "@value", "\x00", "0", "-1", "00", "٣", "a/b", "a", "é",
           "\ud800", "\udcff", "%i0x1", " ", "\n", "x" * 300]  # fmt: skip


def float_of(number: int) -> float:
    return float(struct.unpack("<d", number.to_bytes(8, "little"))[0])


NAN_PAYLOADS = [float_of(n) for n in (0x7FF8000000000001, 0xFFF8DEADBEEF0000, 0x7FF0000000000001)]

keys = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(), max_size=8),
    st.integers(-5, 5),
    st.integers(-(10**60), 10**60),
)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, 2**53, -(2**53), 2**53 - 1]),
    st.floats(width=64),
    st.sampled_from([-0.0, math.inf, -math.inf, *NAN_PAYLOADS]),
    st.text(st.characters(), max_size=10),
    st.binary(max_size=10),
    st.complex_numbers(),
    st.builds(complex, st.sampled_from([-0.0, *NAN_PAYLOADS]), st.just(math.inf)),
    st.builds(np.float32, st.floats(width=32)),
    st.sampled_from([np.int8(-3), np.uint64(2**64 - 1), np.bool_(True), np.complex64(1 - 2j), np.float16(-0.0)]),
)
arrays = st.sampled_from(
    [torch.arange(4), torch.tensor(float("nan")), torch.empty(0, 2), np.ones((2, 1), ">f4"), np.array(7, np.uint8)]
)
states = st.recursive(
    plain | arrays,
    lambda child: (
        st.lists(child, max_size=3)
        | st.lists(child, max_size=3).map(tuple)
        | st.dictionaries(keys, child, max_size=4)
        | st.dictionaries(keys, child, max_size=4).map(OrderedDict)
    ),
    max_leaves=12,
)


@given(states)
@settings(max_examples=400, deadline=None)
@example({0: torch.ones(1), "0": torch.zeros(1)})
@example({key: torch.tensor(i) for i, key in enumerate(HOSTILE)})
def test_a_nested_state_is_taken_apart_and_put_together_exactly(state: Any) -> None:
    structure, leaves = flatten(state)
    through_json = json.loads(json.dumps(structure))
    assert same(unflatten(through_json, lambda i: leaves[i].value), state)


@given(plain)
@settings(max_examples=400, deadline=None)
@example(NAN_PAYLOADS[1])
@example("\ud800")
def test_every_plain_value_survives_json_to_the_last_bit(value: Any) -> None:
    text = json.dumps(encode_plain(value), allow_nan=False)
    assert bits(decode_plain(json.loads(text))) == bits(value)


@given(states)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@example({key: torch.tensor(i) for i, key in enumerate(HOSTILE)})
@example({"a": {key: [np.arange(i), {key: 1}] for i, key in enumerate(HOSTILE)}})
@example(torch.arange(3))
@example(5)
@example({})
def test_a_nested_state_comes_back_from_disk_exactly(memory_path: Path, state: Any) -> None:
    count = len(list(memory_path.iterdir()))
    hr.save(memory_path / f"run{count}", state, step=0)
    assert same(hr.load(memory_path / f"run{count}").state, state)


@given(
    st.lists(
        st.lists(keys, min_size=1, max_size=4).map(tuple),
        unique_by=lambda p: tuple((type(k), k) for k in p),
        max_size=30,
    )
)
@settings(max_examples=300, deadline=None)
@example([("/",), ("%2F",), ("a/b",), ("a", "b"), (0,), ("0",), ("٣",), ("%663",), ("",), (".",), ("%2E",)])
@example([(2**200,), (hex(2**200),), (f"%i{hex(2**200)}",), (str(10**40),), (10**40,)])
def test_no_two_paths_have_the_same_name_in_the_file(paths: list[tuple[Any, ...]]) -> None:
    names = [path_name(path) for path in paths]
    assert len(set(names)) == len(names)
    for name in names:
        name.encode("utf-8")
        assert "\x00" not in name
        assert not name.startswith("@rank")
        assert all(part not in ("", ".", "..") for part in name.split("/"))


def test_integers_too_long_to_print_are_saved_as_values_and_as_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4300"):
        str(HUGE)
    state = {"a": HUGE, HUGE: torch.ones(2), "b": {-HUGE: [-HUGE, {HUGE: 1}]}}
    hr.save(tmp_path / "run", state, step=1)
    assert same(hr.load(tmp_path / "run").state, state)
    with pytest.raises(UntrackableError) as caught:
        hr.save(tmp_path / "run", {"b": {HUGE: {1}}}, step=2)
    assert caught.value.where.startswith("b[0x")


def test_a_path_is_written_as_python_writes_it() -> None:
    assert path_text(("optimizer", "state", 0, "exp_avg")) == "optimizer['state'][0]['exp_avg']"
    assert path_text(()) == "the root of the state"


class Point(NamedTuple):
    x: int


class Colour(enum.IntEnum):
    RED = 1


class MyTensor(torch.Tensor):
    pass


class FakeDTensor(torch.Tensor):
    __module__ = "torch.distributed.tensor"


def self_containing() -> Any:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def quantized() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def nested_tensor() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])


REFUSED: dict[str, Any] = {
    "sparse": lambda: torch.ones(3).to_sparse(),
    "quantized": quantized,
    "meta": lambda: torch.ones(3, device="meta"),
    "nested tensor": nested_tensor,
    "subclass": lambda: torch.ones(3).as_subclass(MyTensor),
    "DTensor": lambda: torch.ones(3).as_subclass(FakeDTensor),
    "object array": lambda: np.array([object()]),
    "structured array": lambda: np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
    "text array": lambda: np.array(["a", "b"]),
    "bytes array": lambda: np.array([b"a"]),
    "datetime array": lambda: np.array(["2020-01-01"], dtype="datetime64[s]"),
    "masked array": lambda: np.ma.array([1, 2], mask=[True, False]),
    "numpy datetime": lambda: np.datetime64("2020-01-01"),
    "numpy void": lambda: np.zeros(1, dtype=[("a", "f4")])[0],
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset({1}),
    "datetime": lambda: dt.datetime.now(dt.timezone.utc),
    "path": lambda: Path("x"),
    "namedtuple": lambda: Point(1),
    "enum": lambda: Colour.RED,
    "defaultdict": lambda: defaultdict(int),
    "bytearray": lambda: bytearray(b"x"),
    "generator": lambda: (i for i in range(2)),
    "function": lambda: len,
    "module": lambda: torch.nn.Linear(1, 1),
    "class": lambda: int,
    "slice of a list": lambda: GlobalSlice([1, 2], (2,), (0,)),
    "slice without numbers": lambda: GlobalSlice(np.zeros(2), ("2",), (0,)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("local", [False, True], ids=["global", "rank-local"])
def test_what_cannot_be_saved_is_refused_with_its_path(tmp_path: Path, kind: str, local: bool) -> None:
    value = REFUSED[kind]()
    inner = {"b": [1, value]}
    state = {"a": RankLocal(inner) if local else inner}
    with pytest.raises(UntrackableError) as caught:
        hr.save(tmp_path / "run", state, step=1)
    assert caught.value.where.endswith("a['b'][1]")
    assert caught.value.hint or local
    assert hr.Generations(tmp_path / "run").list() == []


@pytest.mark.parametrize("key", [True, 1.5, None, b"x", (1, 2), np.int64(3), Colour.RED], ids=repr)
def test_keys_other_than_str_and_int_are_refused_with_their_path(key: Any) -> None:
    with pytest.raises(UntrackableError, match="a key of type") as caught:
        flatten({"a": {key: 1}})
    assert caught.value.where == "a"


def test_a_key_that_is_too_long_for_a_name_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(UntrackableError, match="too long") as caught:
        hr.save(tmp_path / "run", {"a": {"k" * 70_000: torch.ones(1)}}, step=1)
    assert caught.value.where == "a"
    assert len(str(caught.value)) < 500
    hr.save(tmp_path / "run", {"a": {"k" * 30_000: torch.ones(1)}}, step=1)
    assert same(hr.load(tmp_path / "run").state, {"a": {"k" * 30_000: torch.ones(1)}})


def test_a_state_that_contains_itself_is_refused() -> None:
    with pytest.raises(UntrackableError, match="contains itself") as caught:
        flatten({"a": self_containing()})
    assert caught.value.where == "a[0][0]"


def test_the_deepest_tree_that_is_allowed_is_saved_and_one_level_more_is_refused(tmp_path: Path) -> None:
    state: Any = torch.ones(2)
    for _ in range(MAX_DEPTH):
        state = {"k": state}
    hr.save(tmp_path / "run", state, step=1)
    assert same(hr.load(tmp_path / "run").state, state)
    with pytest.raises(UntrackableError, match="deeper than"):
        hr.save(tmp_path / "run", [state], step=2)


@pytest.mark.parametrize(
    "value", [RankLocal(1), GlobalSlice(np.zeros(2), (2,), (0,))], ids=["RankLocal", "GlobalSlice"]
)
def test_wrappers_inside_a_rank_local_value_are_refused_with_their_path(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UntrackableError) as caught:
        hr.save(tmp_path / "run", {"a": RankLocal([0, value])}, step=1)
    assert caught.value.where == "a[1]"


@pytest.mark.parametrize(
    "node",
    [
        {"float": "xyz"},
        {"float": "00"},
        {"int": "no"},
        {"int": 5},
        {"bytes": "*"},
        {"numpy": ["O", "00"]},
        {"numpy": ["f4,f4", "0000000000000000"]},
        {"numpy": ["(2", "00"]},
        {"numpy": ["<f8", "00"]},
        {"numpy": []},
        {"complex": ["7ff8000000000000"]},
        {"unknown": 1},
        {},
        {"float": "00", "int": "0"},
    ],
    ids=str,
)
def test_a_plain_value_that_we_have_not_written_is_damage(node: Any) -> None:
    with pytest.raises(DamagedError):
        decode_plain(node)


@pytest.mark.parametrize(
    "structure",
    [
        None,
        "x",
        -1,
        True,
        1.5,
        {},
        {"dict": 1},
        {"dict": [[1]]},
        {"dict": [[[], 0]]},
        {"set": [0]},
        {"list": 0},
        {"tuple": None},
    ],
    ids=str,
)
def test_a_structure_that_we_have_not_written_is_damage(structure: Any) -> None:
    with pytest.raises(DamagedError):
        unflatten(structure, lambda i: i)
