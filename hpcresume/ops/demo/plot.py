"""Draws the demo: loss over wall time with its interruptions, and over steps against the reference.

matplotlib is imported here and nowhere else, when a plot is drawn.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.io.durable import write_durably
from hpcresume.model import Cause
from hpcresume.observe.curve import Curve, Point
from hpcresume.observe.history import AttemptHistory

__all__ = ["ATTEMPT_COLOURS", "Picture", "draw", "figure_of"]

ATTEMPT_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color)."""
_REFERENCE = "#9a9a9a"
_MARK = "#b00020"


@dataclass(frozen=True)
class Picture:
    """What is drawn. `reference` holds the uninterrupted training's points, by step; `verdict` is the title.

    `began` and `reference_began` are the unix times at which the two trainings' processes were started.
    """

    attempts: Sequence[AttemptHistory]
    curve: Curve
    reference: Sequence[Point]
    verdict: str
    identical: bool
    began: float
    reference_began: float


def draw(picture: Picture, path: Path) -> None:
    """Write the plot to `path` (PNG).

    Raises:
        OSError: the file cannot be written.
    """
    data = io.BytesIO()
    figure_of(picture).savefig(data, format="png")
    write_durably(path, data.getvalue(), mode=0o644)


def figure_of(picture: Picture) -> Any:
    """The plot as a matplotlib Figure that belongs to no window and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 7.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    over_time, over_steps = figure.subplots(2, 1, height_ratios=(3, 2))
    _draw_over_time(over_time, picture)
    _draw_over_steps(over_steps, picture)
    handles, labels = over_time.get_legend_handles_labels()
    if handles:
        over_steps.legend(handles, labels, loc="upper right", fontsize=8, framealpha=0.9)
    colour = "#00694a" if picture.identical else _MARK
    figure.suptitle(picture.verdict, fontsize=13, fontweight="bold", color=colour)
    return figure


def _colour(attempt: int) -> str:
    return ATTEMPT_COLOURS[(attempt - 1) % len(ATTEMPT_COLOURS)]


def _draw_over_time(axes: Any, picture: Picture) -> None:
    points = [*picture.curve.kept, *picture.curve.lost]
    zero = picture.began
    _draw_reference(axes, [(p.t - picture.reference_began, p.value) for p in picture.reference])
    for attempt in picture.attempts:
        kept = [(p.t - zero, p.value) for p in picture.curve.kept if p.attempt == attempt.attempt]
        lost = [(p.t - zero, p.value) for p in picture.curve.lost if p.attempt == attempt.attempt]
        _draw_attempt(axes, attempt, kept, lost)
    _mark_interruptions(axes, picture.attempts, points, zero)
    axes.set(xlabel="wall time (s)", ylabel="loss (nats per byte)")
    axes.grid(alpha=0.25)


def _draw_reference(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=_REFERENCE, lw=5, alpha=0.45, label="reference: never interrupted", zorder=1)


def _draw_attempt(
    axes: Any,
    attempt: AttemptHistory,
    kept: Sequence[tuple[float, float]],
    lost: Sequence[tuple[float, float]],
) -> None:
    colour = _colour(attempt.attempt)
    if kept:
        label = f"attempt {attempt.attempt}: steps {attempt.start_step + 1} to {attempt.counted_to}"
        axes.plot(*zip(*kept, strict=True), color=colour, lw=1.5, label=label, zorder=3)
    if lost:
        label = f"attempt {attempt.attempt}: {attempt.lost_steps} steps lost, done again"
        joined = [*kept[-1:], *lost]
        axes.plot(*zip(*joined, strict=True), color=colour, lw=1.5, ls=":", alpha=0.55, label=label, zorder=2)


_WORDS = {
    Cause.PREEMPTED: "preempted: warned, saved",
    Cause.WALLTIME: "time limit: warned, saved",
    Cause.CRASH: "a rank killed, no warning",
    Cause.NODE_FAILURE: "a node lost",
}


def _mark_interruptions(axes: Any, attempts: Sequence[AttemptHistory], points: Sequence[Point], zero: float) -> None:
    """A line where each attempt but the last one ended, and a band until the next one's first step."""
    for attempt, following in itertools.pairwise(attempts):
        last = max((p.t for p in points if p.attempt == attempt.attempt), default=None)
        first = min((p.t for p in points if p.attempt == following.attempt), default=None)
        if last is None or first is None:
            continue
        word = _WORDS.get(attempt.cause or Cause.UNKNOWN, str((attempt.cause or Cause.UNKNOWN).value))
        axes.axvspan(last - zero, first - zero, color="#000000", alpha=0.05, lw=0)
        axes.axvline(last - zero, color=_MARK, lw=1.2, ls="--")
        text = f" {word}\n then back from step {following.start_step}"
        if following.skipped:
            text += f"\n (newest generation damaged:\n step {_step(following)} skipped)"
        axes.text(
            last - zero,
            0.96,
            text,
            color=_MARK,
            fontsize=8,
            va="top",
            transform=axes.get_xaxis_transform(),
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
            zorder=4,
        )


def _step(attempt: AttemptHistory) -> str:
    return ", ".join(str(int(s.generation[1:13])) for s in attempt.skipped if s.generation[1:13].isdigit())


def _draw_over_steps(axes: Any, picture: Picture) -> None:
    _draw_reference(axes, [(p.step, p.value) for p in picture.reference])
    for attempt in picture.attempts:
        kept = [(p.step, p.value) for p in picture.curve.kept if p.attempt == attempt.attempt]
        if kept:
            axes.plot(*zip(*kept, strict=True), color=_colour(attempt.attempt), lw=1.5, zorder=3)
        if attempt.restored_from:
            axes.axvline(attempt.start_step, color=_MARK, lw=0.8, ls="--")
    axes.set(xlabel="step (only those that count)", ylabel="loss")
    axes.grid(alpha=0.25)
