"""What the roll call says about who is there."""

from __future__ import annotations

import stat

import pytest

from hpcresume.comm.roll_call import Answer, call_roll, is_called, leave_mark, ranks_text


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([3], "rank 3"),
        ([1, 3], "ranks 1, 3"),
        ([4, 3], "ranks 3, 4"),
        ([1, 2, 3, 9], "ranks 1-3, 9"),
        (range(1, 4096), "ranks 1-4095"),
        (range(0, 4096, 2), f"ranks {', '.join(map(str, range(0, 32, 2)))} … (2048 in all)"),
    ],
)
def test_ranks_are_named_on_one_line(ranks, text):
    assert ranks_text(ranks) == text


def test_who_left_no_mark_is_missing(tmp_path):
    place = tmp_path / "roll-call"
    assert not is_called(place, 7)
    for rank in (0, 2, 100_000):
        leave_mark(place, 7, "Save, step 40!", rank)
    assert is_called(place, 7)
    assert call_roll(place, 7, 4) == Answer((0, 2, 100_000), (1, 3))
    assert [path.name for path in place.iterdir()] == ["00000007-save-step-40"]


def test_a_mark_may_be_left_twice_and_is_for_its_owner_only(tmp_path):
    leave_mark(tmp_path, 1, "x", 0)
    leave_mark(tmp_path, 1, "x", 0)
    (mark,) = (tmp_path / "00000001-x").iterdir()
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    assert stat.S_IMODE(mark.parent.stat().st_mode) == 0o700


def test_a_rank_that_waits_further_on_is_not_missing_and_one_further_back_is(tmp_path):
    leave_mark(tmp_path, 5, "now", 0)
    leave_mark(tmp_path, 6, "later", 1)
    leave_mark(tmp_path, 4, "before", 2)
    answer = call_roll(tmp_path, 5, 4)
    assert answer == Answer((0,), (2, 3), ((1, "later"), (2, "before")))
    assert answer.text("now", 300.0) == (
        "ranks 2, 3 have not reached 'now' after 300 s; rank 1 was last seen in 'later'; "
        "rank 2 was last seen in 'before'"
    )


def test_files_that_are_no_marks_are_left_alone(tmp_path):
    leave_mark(tmp_path, 1, "x", 0)
    (tmp_path / "00000001-x" / ".nfs0001").touch()
    (tmp_path / "notes.txt").touch()
    assert call_roll(tmp_path, 1, 2) == Answer((0,), (1,))


def test_a_name_of_any_kind_stays_inside_the_directory(tmp_path):
    leave_mark(tmp_path / "roll-call", 1, "../../etc/\0passwd " + "x" * 500, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["roll-call"]
    assert is_called(tmp_path / "roll-call", 1)
