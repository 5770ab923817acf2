"""Draws a field of any generation of a Gray–Scott run: python draw.py RUN [--step N] [--out PNG]

Nothing is restored and no MPI is needed: `hr.read_tensor` reads the rows that the picture shows, some at a time, and
checks every byte of them. The files that the picture is made from may be larger than this machine's memory.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import hpcresume as hr

__all__ = ["draw", "read_field"]

PIXELS = 1024
"""Cells drawn along the longer side; of a larger field every second, third … is."""
BAND = 16 << 20
"""Bytes of whole rows read at a time."""

Window = tuple[slice, slice]
WHOLE = (slice(None), slice(None))


def main() -> None:
    """Draw what the command line asks for."""
    args = _parser().parse_args()
    try:
        generation = choose(args.run, args.step)
        out = args.out or Path(f"{generation.name}-{args.field}.png")
        draw(generation, out, field=args.field, window=args.window)
    except hr.errors.HpcresumeError as error:
        raise SystemExit(f"draw.py: {error}") from error
    print(out)


def choose(run: Path, step: int | None) -> hr.Generation:
    """The newest generation of a run, or the newest at this step.

    Raises:
        NoGenerationError: there is none.
    """
    found = hr.Generations(run).lineage()
    for generation in found:
        if step in (None, generation.step):
            return generation
    known = ", ".join(str(each.step) for each in reversed(found)) or "there are none"
    raise hr.errors.NoGenerationError(f"no generation at step {step}", where=str(run), hint=f"one of these: {known}")


def read_field(generation: hr.Generation, field: str, window: Window = WHOLE, pixels: int = PIXELS) -> np.ndarray:
    """A window of a field, thinned out so that neither side has more than `pixels` cells; read band by band."""
    rows, columns = _cells(generation, field, window)
    stride = max(1, math.ceil(max(len(rows), len(columns)) / pixels))
    row_bytes = 8 * generation.tensors[_name(field)].shape[1]
    height = max(1, BAND // row_bytes // stride) * stride
    across = slice(columns.start, columns.stop, stride)
    bands = [
        hr.read_tensor(generation, _name(field), (slice(top, min(top + height, rows.stop), stride), across))
        for top in range(rows.start, rows.stop, height)
    ]
    return np.concatenate(bands)


def draw(generation: hr.Generation, out: Path, field: str = "v", window: Window = WHOLE) -> None:
    """Write a picture of a field to `out` (PNG).

    Raises:
        ConfigError: there is no cell in the window.
    """
    rows, columns = _cells(generation, field, window)
    cells = read_field(generation, field, window)
    figure = Figure(figsize=(7, 0.7 + 5.6 * len(rows) / len(columns)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    edges = (columns.start, columns.stop, rows.stop, rows.start)
    image = axes.imshow(cells, cmap="magma" if field == "v" else "viridis", extent=edges, interpolation="nearest")
    ranks = f"{generation.world_size} rank{'s' if generation.world_size > 1 else ''}"
    axes.set_title(f"{field} after step {generation.step}, saved by {ranks}", loc="left")
    axes.set_xlabel(generation.name)
    figure.colorbar(image, ax=axes, shrink=0.8)
    out.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(out))


def _name(field: str) -> str:
    """The tensor's name in the generation's HDF5 file: `hpcresume inspect` lists them."""
    return f"objects/{field}"


def _cells(generation: hr.Generation, field: str, window: Window) -> tuple[range, range]:
    """The rows and columns of a window."""
    shape = generation.tensors[_name(field)].shape
    rows, columns = (range(*part.indices(n)) for part, n in zip(window, shape, strict=True))
    if not rows or not columns:
        hint = f"a part of 0:{shape[0]},0:{shape[1]}"
        raise hr.errors.ConfigError("there is no cell in the window", where=generation.name, hint=hint)
    return rows, columns


def _parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    options.add_argument("run", type=Path, help="the run's directory")
    options.add_argument("--step", type=int, help="the generation of this step; default: the newest")
    options.add_argument("--field", choices=("u", "v"), default="v")
    options.add_argument("--window", type=_window, default=WHOLE, metavar="ROWS,COLUMNS", help="a part: 0:128,64:256")
    options.add_argument("--out", type=Path, metavar="PNG", help="default: named after the generation")
    return options


def _window(text: str) -> Window:
    """`0:128,64:256` as slices."""
    numbers = re.fullmatch(r"(\d*):(\d*),(\d*):(\d*)", text)
    if numbers is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no window; try 0:128,64:256")
    top, bottom, left, right = (int(each) if each else None for each in numbers.groups())
    return slice(top, bottom), slice(left, right)


if __name__ == "__main__":
    main()
