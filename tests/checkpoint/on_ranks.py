"""Saving and loading on ranks that are threads, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpcresume as hr
from hpcresume.errors import HpcresumeError
from hpcresume.testing.thread_ranks import ThreadRanks, run_ranks, unwrap

__all__ = ["State", "errors_of", "leftovers", "load", "save"]

State = Callable[[ThreadRanks], Any]


def save(run: Path, size: int, state: State, step: int = 1, nodes: list[int] | None = None) -> hr.Generation:
    """Every rank saves what `state(ranks)` gives; the generation, the same on all."""
    generations = unwrap(run_ranks(size, lambda ranks: hr.save(run, state(ranks), step=step, comm=ranks), nodes=nodes))
    assert all(g == generations[0] for g in generations)
    return generations[0]


def load(run: Path, size: int, into: State = lambda ranks: None) -> list[Any]:
    """The state that each of `size` ranks loads."""
    loaded = unwrap(run_ranks(size, lambda ranks: hr.load(run, into(ranks), comm=ranks)))
    assert len({each.generation.name for each in loaded}) == 1
    return [each.state for each in loaded]


def errors_of(size: int, act: Callable[[ThreadRanks], object]) -> list[HpcresumeError]:
    """What each rank raised: all of them something typed, and of the same class."""
    results = run_ranks(size, act, timeout=20)
    assert all(isinstance(result, HpcresumeError) for result in results), results
    assert len({type(result) for result in results}) == 1, results
    return [result for result in results if isinstance(result, HpcresumeError)]


def leftovers(run: Path) -> list[str]:
    return [p.name for p in (run / "generations").iterdir() if p.name.startswith(".")]
