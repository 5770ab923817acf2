"""A small chart of points in a text cell grid, drawn with braille dots (2 × 4 to a cell). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Dot", "chart"]

_BRAILLE = 0x2800
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot by column and row (Unicode, Braille Patterns)."""


@dataclass(frozen=True)
class Dot:
    """A point to draw, in the units of the data, and the style of the cell it falls into."""

    x: float
    y: float
    style: str = ""


def chart(dots: Sequence[Dot], *, width: int, height: int, x_max: float) -> list[list[tuple[str, str]]]:
    """Rows from the top, each a list of (character, style); later dots decide a cell's style.

    x runs from 0 to `x_max`; y is fitted to the finite dots.
    """
    cells = [[0] * width for _ in range(height)]
    styles = [[""] * width for _ in range(height)]
    finite = [dot for dot in dots if math.isfinite(dot.y)]
    low = min((dot.y for dot in finite), default=0.0)
    span = max((dot.y for dot in finite), default=1.0) - low or 1.0
    for dot in finite:
        column = round(min(max(dot.x / x_max, 0.0), 1.0) * (2 * width - 1))
        row = round((1 - (dot.y - low) / span) * (4 * height - 1))
        cells[row // 4][column // 2] |= _BITS[column % 2][row % 4]
        styles[row // 4][column // 2] = dot.style
    return [
        [(chr(_BRAILLE + bits) if bits else " ", style) for bits, style in zip(line, marks, strict=True)]
        for line, marks in zip(cells, styles, strict=True)
    ]
