"""Checked by mypy and never run: what a user's type checker sees of the public API (`make types`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import hpcresume as hr
from hpcresume.errors import DamagedError, HpcresumeError


def train(run: Path) -> float:
    with hr.session(run, every="20min") as s:
        session: hr.Session = s
        session.track(weights=np.zeros(3))
        steps: Iterator[int] = iter(s.steps(10))
        for step in steps:
            s.poll()
            s.log(loss=float(step))
        s.finish()
    return 1.0


def by_hand(run: str) -> str:
    generation: hr.Generation = hr.save(run, {"a": np.zeros(3)}, step=1)
    loaded: hr.Loaded = hr.load(run)
    found, _ = hr.load(generation)
    known: list[hr.Generation] = hr.Generations(run).list()
    newest: hr.Generation | None = hr.Generations(run).newest()
    names: list[str] = sorted(loaded.generation.tensors)
    hr.read_tensor(found, names[0])
    ok: bool = hr.Generations(run).verify(known[0]).ok
    mine = {"a": hr.RankLocal(1), "b": hr.GlobalSlice(np.zeros(2), shape=(4,), start=(0,))}
    hr.save(run, mine, step=2)
    return f"{hr.__version__} {ok} {newest}"


def fail(error: HpcresumeError) -> tuple[str, str, str, int]:
    if isinstance(error, DamagedError):
        return error.generation, error.tensor, error.what, error.offset
    return error.what, error.where, error.hint, error.exit_code


def errors_by_the_facade() -> type[Exception]:
    return hr.errors.SaveError
