"""Which of many like cells `make test` runs; `make test-full` and `make test-slurm-full` run all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sampled(cells: Iterable[Any], keep: Callable[[Any], bool]) -> list[Any]:
    """Cells for `parametrize`, those that are not kept marked as `full`. A cell may be a tuple of values."""
    return [cell if keep(cell) else _full(cell) for cell in cells]


def _full(cell: Any) -> Any:
    values = cell if isinstance(cell, tuple) else (cell,)
    return pytest.param(*values, marks=pytest.mark.full)
