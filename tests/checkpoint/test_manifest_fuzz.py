"""Manifests that are wrong but whose digest is right: no untyped exception, no read outside the file, bounded time.

Accidents cannot make these (see test_every_byte.py); another program, or somebody who wants to, can.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpcresume as hr
from hpcresume.checkpoint.digest import digest_bytes
from hpcresume.checkpoint.manifest import decode, encode
from hpcresume.errors import DamagedError, FormatVersionError, HpcresumeError
from hpcresume.model import GlobalSlice, RankLocal

MUTANTS = 3000
NAME = "g000000000001-a0001"

NUMBERS = [None, True, False, 0, 1, -1, 2, 7, 4096, 2**31, 2**53, 2**63, 2**64, 10**30, -(10**30), 1.5, 1e308]
TEXTS = [
    "", "a", "..", "/etc/passwd", "object", "O", "f4,f4", "(2,)f4", "(", "V8", "S10", "datetime64[s]", "float128",
    "bfloat16", "torch", "numpy", "sliced", "per-rank", "one-rank", "replicated", "state.h5", "state.000.h5",
    "../state.h5", "manifest.json", "ff" * 16, "x" * 32, "\ud800", "\x00",
]  # fmt: skip
NODES = [
    [], {}, [0], [10**9], [10**9, 0], [-1], [2, 2], [[0], [1]], {"list": [0]}, {"dict": [[1, 0]]}, {"value": 1},
    {"tensor": 0}, {"tensor": -1}, {"tensor": 99}, {"local": True}, {"float": "x"}, {"numpy": ["O", "00"]},
]  # fmt: skip
VALUES: list[Any] = [*NUMBERS, *TEXTS, *NODES]


@pytest.fixture
def run(memory_path: Path) -> Path:
    """One generation with every scope (saved by one rank) and several kinds of values."""
    state = {
        "w": torch.arange(6.0).reshape(2, 3),
        "n": np.arange(4, dtype=np.int16),
        "s": GlobalSlice(np.arange(6).reshape(2, 3), (2, 3), (0, 0)),
        "l": RankLocal({"x": np.ones(2), "y": [1, 2.5, np.float32(1)]}),
        "plain": [1, float("nan"), b"x", (None, True), {"k": 10**20}],
    }
    hr.save(memory_path / "run", state, step=1)
    return memory_path / "run"


def seal(body: Any) -> bytes:
    """A manifest file with this body and the digest that belongs to it."""
    text = json.dumps(body).encode()
    return b'{"manifest":' + text + b',"digest":"xxh3-128:' + digest_bytes(text).hex().encode() + b'"}\n'


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [place for key, child in items for place in ((node, key), *places(child))]


def mutate(body: Any, chance: random.Random) -> Any:
    """A copy with one or two places replaced, removed, doubled, swapped or nudged."""
    body = copy.deepcopy(body)
    for _ in range(chance.randint(1, 2)):
        container, key = chance.choice(places(body))
        kind = chance.randrange(5)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif kind == 2 and type(container[key]) in (int, float):
            container[key] += chance.choice([-1, 1, -8, 8, 4096])
        elif kind == 3:
            other, there = chance.choice(places(body))
            container[key] = copy.deepcopy(other[there])
        else:
            container[key] = chance.choice(VALUES)
        if not places(body):
            break
    return body


def use_everything(run: Path) -> str:
    """Load, list, verify and read; the name of the first outcome."""
    generations = hr.Generations(run)
    found = generations.list()
    generations.damaged()
    for generation in found:
        for name in generation.tensors:
            try:
                hr.read_tensor(generation, name)
            except HpcresumeError:
                continue
    report = generations.verify(NAME) if found else None
    hr.load(run)
    return "loaded" if report is None or report.ok else "loaded, but verify found damage"


def test_no_mutated_manifest_raises_anything_untyped_or_takes_long(run: Path) -> None:
    path = run / "generations" / NAME / "manifest.json"
    body = json.loads(path.read_bytes())["manifest"]
    path.write_bytes(seal(body))
    assert use_everything(run) == "loaded", "sealing is right"
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for i in range(MUTANTS):
        mutant = mutate(body, chance)
        path.write_bytes(seal(mutant))
        began = time.monotonic()
        try:
            outcomes[use_everything(run)] += 1
        except HpcresumeError as error:
            outcomes[type(error).__name__] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, mutant {i}: {error!r}") from error
        slowest = max(slowest, time.monotonic() - began)
    print(f"seed {seed}: {MUTANTS} mutated manifests, {dict(outcomes)}, the slowest took {slowest:.3f} s")
    assert slowest < 5
    assert outcomes["NoUsableGenerationError"] > MUTANTS // 4


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b["files"][0]["tensors"][0].update(dtype="object", library="numpy"),
        lambda b: b["files"][0]["tensors"][0].update(shape=[10**15]),
        lambda b: b["files"][0]["tensors"][0].update(shape=[10**15, 0]),
        lambda b: b["files"][0]["tensors"][0].update(offset=10**18),
        lambda b: b["files"][0].update(size=10**18),
        lambda b: b["files"][0].update(unit_bytes=0),
        lambda b: b["files"][0].update(unit_bytes=-4096),
        lambda b: b["files"][0].update(unit_bytes=1),
        lambda b: b["files"][0].update(name="../../../../etc/passwd"),
        lambda b: b["files"].append(b["files"][0]),
        lambda b: b["files"].clear(),
        lambda b: b.update(world_size=10**12),
        lambda b: b.update(world_size=0),
        lambda b: b.update(rank_parts=[]),
        lambda b: b.update(structure=nested(400)),
        lambda b: b["leaves"].clear(),
        lambda b: b.update(run_id="00" * 16),
        lambda b: b.update(step=2),
        lambda b: b["files"][0].update(units=""),
        lambda b: b["files"][0].update(units=b["files"][0]["units"] + "00" * 16),
    ],
)
def test_a_manifest_that_lies_is_damage_at_once(run: Path, change: Any) -> None:
    path = run / "generations" / NAME / "manifest.json"
    body = json.loads(path.read_bytes())["manifest"]
    before = copy.deepcopy(body)
    change(body)
    assert body != before
    path.write_bytes(seal(body))
    began = time.monotonic()
    with pytest.raises(HpcresumeError, match=NAME):
        hr.load(run)
    assert time.monotonic() - began < 2


def nested(depth: int) -> Any:
    node: Any = 0
    for _ in range(depth):
        node = {"list": [node]}
    return node


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[]", '{"manifest":{},"digest":"xxh3-128:"}\n', "[" * 100_000, "\x00" * 100]
)
def test_a_manifest_that_is_none_is_damage(text: str) -> None:
    with pytest.raises(DamagedError, match="digest"):
        decode(text.encode(), NAME)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"1", b'"x"', b"[" * 100_000, b"{", b"\xff", b"1" * 10_000, b"NaN"]
)
def test_a_sealed_body_that_is_no_manifest_is_typed(body: bytes) -> None:
    data = b'{"manifest":' + body + b',"digest":"xxh3-128:' + digest_bytes(body).hex().encode() + b'"}\n'
    with pytest.raises((DamagedError, FormatVersionError)):
        decode(data, NAME)


def test_a_manifest_survives_encoding_and_decoding(run: Path) -> None:
    data = (run / "generations" / NAME / "manifest.json").read_bytes()
    assert encode(decode(data, NAME).body) == data
    assert json.loads(data)["digest"].endswith(decode(data, NAME).root)
