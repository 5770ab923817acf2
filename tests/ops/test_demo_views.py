"""What the demo shows while it runs: every event in words, a live picture on a terminal, lines in a log."""

import io

import pytest
from rich.console import Console

from hpcresume.model import Event
from hpcresume.observe.follow import Update
from hpcresume.observe.ledger_reader import MetricRecord, Record
from hpcresume.observe.narrate import Line, narrate
from hpcresume.ops.demo.board import Board
from hpcresume.ops.demo.chart import Dot, chart
from hpcresume.ops.demo.live import LiveView, render
from hpcresume.ops.demo.narrate import narrate_deed
from hpcresume.ops.demo.views import PlainView, Watching, choose_view

BAD = {"generation": "g000000000075-a0002", "reason": "bad", "tensor": "model/w", "offset": 4096}


def event(attempt, name, source="session", t=1.0, **fields):
    return Update(attempt, source, Record(t, name, fields))


def metric(attempt, step, loss, t=1.0):
    return Update(attempt, "metrics", MetricRecord(step, t, {"loss": loss}))


STORY = [
    event(1, "fresh-start"),
    *(metric(1, step, 5.0 - step / 10) for step in range(1, 11)),
    event(1, "warning", signal="SIGUSR1"),
    event(1, "saved", generation="g000000000010-a0001", seconds=0.25, bytes=2 << 20, read_back="all"),
    event(1, "stop", step=10),
    event(1, "ended", "supervisor", cause="preempted"),
    event(2, "claimed"),
    event(2, "restored", generation="g000000000010-a0001", step=10, seconds=0.1, skipped=[]),
    *(metric(2, step, 5.0 - step / 10) for step in range(11, 21)),
    event(2, "ended", "supervisor", cause="crash"),
    event(3, "restored", generation="g000000000010-a0001", step=10, seconds=0.1, skipped=[BAD]),
    metric(3, 11, 3.9),
]


@pytest.fixture
def board():
    board = Board(steps=40)
    for update in STORY:
        board.update(update)
    return board


def test_the_story_is_told_in_order(board):
    assert [line.text for line in board.lines] == [
        "attempt 1: starts from nothing",
        "attempt 1: warned by SIGUSR1: time is short",
        "attempt 1: saved step 10: 2.0 MiB, read back, committed, 0.25 s",
        "attempt 1: all ranks stop together after step 10",
        "attempt 1: ended: preempted",
        "attempt 2: restored step 10 in 0.10 s, every byte verified",
        "attempt 2: ended: crash",
        "attempt 3: step 75 is damaged, byte 4096 of model/w: skipped",
        "attempt 3: restored step 10 in 0.10 s, every byte verified",
    ]


def test_a_save_that_was_not_read_back_is_not_called_so():
    (line,) = narrate(event(1, "saved", generation="g000000000010-a0001", seconds=0.25, bytes=1, read_back="none"))
    assert "not read back" in line.text


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("start", {"attempt": 1, "ranks": 4, "nodes": "n[0-1]"}, "4 ranks start on n[0-1]"),
        ("start", {"attempt": 2, "ranks": 4, "nodes": "n[0-1]"}, "back from the queue: 4 ranks start on n[0-1]"),
        ("preempt", {"grace": 20.0}, "the nodes are wanted back: SIGUSR1, and KILL in 20 s"),
        ("kill-rank", {"rank": 3, "step": 80}, "kill -9 of rank 3, no warning, after step 80"),
    ],
)
def test_what_the_scheduler_does_is_told(name, fields, says):
    line = narrate_deed(Event(name, fields), 1.0)
    assert line is not None
    assert line.text == says


def test_events_nobody_needs_give_no_line():
    assert narrate(event(1, "armed")) == []
    assert narrate(metric(1, 1, 2.0)) == []
    assert narrate_deed(Event("over", {}), 1.0) is None


def test_work_past_the_restored_step_is_lost_and_the_rest_is_not(board):
    lost = {(mark.attempt, mark.step) for mark in board.marks if mark.lost}
    assert lost == {(2, step) for step in range(11, 21)}
    assert (board.attempt, board.step, board.loss) == (3, 11, 3.9)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (110, 36), (40, 20)])
def test_the_live_picture_fits_the_terminal_and_dims_lost_work(board, width, height):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="standard")
    console.print(render(board, 0.0, 12.0, width, height))
    shown = console.file.getvalue()
    lines = shown.rstrip("\n").split("\n")
    assert len(lines) <= height
    assert "attempt 3" in lines[1]
    assert "step 11/40" in shown
    assert "restored step 1" in shown
    assert "\x1b[2;33m" in shown, "attempt 2's curve must be there, dim yellow"


def test_the_live_view_of_nothing_yet_is_drawn():
    console = Console(file=io.StringIO(), width=80, height=24)
    console.print(render(Board(steps=40), 0.0, 0.0, 80, 24))
    assert "step 0/40" in console.file.getvalue()


def test_a_live_view_opens_and_closes_on_any_stream(board):
    out = io.StringIO()
    view = LiveView(board, 0.0, out)
    view.open()
    view.update(metric(3, 12, 3.8))
    view.note(Line(2.0, "something"))
    view.reference(1, 5.0)
    view.close()
    assert "reference" in out.getvalue()


def test_a_log_gets_lines_with_seconds_and_every_tenth_step():
    out = io.StringIO()
    view = PlainView(Board(steps=40), began=0.5, out=out)
    for update in STORY:
        view.update(update)
    view.note(Line(60.5, "one bit flipped on disk", "bad"))
    view.reference(10, 4.0)
    lines = out.getvalue().splitlines()
    assert lines[:3] == [
        "   0.5s  attempt 1: starts from nothing",
        "   0.5s  attempt 1: step 10/40, loss 4.0000",
        "   0.5s  attempt 1: warned by SIGUSR1: time is short",
    ]
    assert "  60.0s  one bit flipped on disk" in lines
    assert lines[-1].endswith("reference: step 10/40, loss 4.0000")
    assert "\x1b" not in out.getvalue()
    assert sum("step 20/40" in line for line in lines) == 1


def test_the_view_is_chosen_by_where_the_output_goes(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stderr", Terminal())
    assert isinstance(choose_view(Board(1), 0.0, as_json=False), PlainView)
    assert isinstance(choose_view(Board(1), 0.0, as_json=True), LiveView)


def test_the_chart_puts_the_first_value_top_left_and_the_last_bottom_right():
    rows = chart([Dot(0, 5.0, "a"), Dot(10, 1.0, "b"), Dot(5, float("nan"))], width=10, height=3, x_max=10)
    assert rows[0][0] == ("⠁", "a")
    assert rows[2][9] == ("⢀", "b")
    assert sum(cell[0] != " " for row in rows for cell in row) == 2
    assert chart([], width=2, height=1, x_max=1) == [[(" ", ""), (" ", "")]]


def test_watching_looks_once_more_at_the_end_and_tells_of_a_look_that_failed():
    looks = []
    with Watching(lambda: looks.append(1), every=100):
        pass
    assert looks == [1]

    def fail():
        raise OSError(5, "broken disk")

    with pytest.raises(OSError, match="broken disk"), Watching(fail, every=100):
        pass
