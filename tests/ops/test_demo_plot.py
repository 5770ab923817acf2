"""The demo's plot shows what happened: interruptions, lost steps, and the reference under the curve."""

from dataclasses import replace

import pytest

from hpcresume.model import Cause, Skipped
from hpcresume.observe.curve import Curve, Point
from hpcresume.observe.history import AttemptHistory
from hpcresume.ops.demo.plot import Picture, draw, figure_of


def loss(step: int) -> float:
    return 5.5 / (1 + step / 25) + 0.1 * ((step * 37) % 11) / 11


def points(attempt: int, steps: range, t: float) -> list[Point]:
    return [Point(step, t + 0.15 * i, loss(step), attempt) for i, step in enumerate(steps)]


def attempt(number, cause, start, end, counted_to, made_by, began, skipped=()) -> AttemptHistory:
    name = f"g{start:012d}-a{made_by:04d}" if made_by else None
    return AttemptHistory(
        attempt=number, has_begun=True, start_step=start, end_step=end, restored_from=name, generations=(),
        skipped=skipped, cause=cause, evidence=(), warnings=0, began=began, ended=None, save_seconds=0.1,
        verify_seconds=0.0, restore_seconds=0.1, counted_to=counted_to,
    )  # fmt: skip


@pytest.fixture
def picture() -> Picture:
    bad = (Skipped("g000000000080-a0002", "digest mismatch", "model/w", 4096),)
    return Picture(
        attempts=(
            attempt(1, Cause.PREEMPTED, 0, 40, 40, 0, 1000.0),
            attempt(2, Cause.CRASH, 40, 93, 60, 1, 1014.0),
            attempt(3, Cause.DONE, 60, 120, 120, 2, 1030.0, bad),
        ),
        curve=Curve(
            (
                *points(1, range(1, 41), 1004.0),
                *points(2, range(41, 61), 1018.0),
                *points(3, range(61, 121), 1035.0),
            ),
            tuple(points(2, range(61, 94), 1021.0)),
        ),
        reference=points(0, range(1, 121), 2000.0),
        verdict="IDENTICAL: every loss, weight, random state and sample",
        identical=True,
        began=1000.0,
        reference_began=1996.0,
    )


def test_every_interruption_is_marked_and_says_where_the_next_attempt_went_on(picture):
    axes = figure_of(picture).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 2
    assert "preempted" in texts[0]
    assert "step 40" in texts[0]
    assert "step 60" in texts[1]
    assert "step 80 skipped" in texts[1]


def test_lost_steps_are_drawn_faded_and_kept_ones_are_not(picture):
    axes = figure_of(picture).axes[0]
    (faded,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert faded.get_alpha() < 1
    assert list(faded.get_ydata())[1:] == [loss(step) for step in range(61, 94)]


def test_the_reference_lies_under_the_curve_in_both_panels(picture):
    for axes in figure_of(picture).axes:
        reference = min(axes.lines, key=lambda line: line.get_zorder())
        assert list(reference.get_ydata()) == [loss(step) for step in range(1, 121)]


def test_a_png_is_written_even_with_nothing_in_it(picture, tmp_path):
    draw(picture, tmp_path / "plot.png")
    draw(replace(picture, attempts=(), curve=Curve((), ()), reference=()), tmp_path / "empty.png")
    for name in ("plot.png", "empty.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n")
