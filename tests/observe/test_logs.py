"""Logs are cut where attempts began, whatever became of the files; the ends of long ones cost nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcresume.io.outputs import output_files
from hpcresume.observe import logs as module
from hpcresume.observe.logs import Piece, last_lines, lines_of, of_rank, pieces, rank_of_line_style


def began(written, attempt: int, log: Path, offset: int) -> None:
    written.run.attempt(attempt).root.mkdir(exist_ok=True)
    written.supervisor(attempt, "started", log=[{"path": str(log), "offset": offset}])


def text_of(piece: Piece) -> str:
    return b"".join(lines_of(piece)).decode()


def test_a_log_that_all_attempts_append_to_is_cut_where_each_began(written, tmp_path):
    log = tmp_path / "slurm-12.out"
    log.write_text("module load\none\ncancelled\ntwo\nthree")
    began(written, 1, log, 12)
    began(written, 2, log, 26)
    began(written, 3, log, 30)
    assert [(p.attempt, text_of(p)) for p in pieces(written.run)] == [
        (1, "module load\none\ncancelled\n"),
        (2, "two\n"),
        (3, "three"),
    ]
    assert [text_of(p) for p in pieces(written.run, 2)] == ["two\n"]


def test_a_log_that_was_begun_anew_is_shown_once_and_said_to_be_gone_before(written, tmp_path):
    log = tmp_path / "slurm-12.out"
    log.write_text("hello\nthird\n")
    for attempt in (1, 2, 3):
        began(written, attempt, log, 6)
    first, second, third = pieces(written.run)
    assert [text_of(p) for p in (first, second, third)] == ["", "", "hello\nthird\n"]
    assert "attempt 2 began this file anew" in first.note
    assert "attempt 3 began this file anew" in second.note
    assert third.note == ""


def test_files_that_are_gone_or_shorter_than_they_were_say_so(written, tmp_path):
    began(written, 1, tmp_path / "gone.out", 0)
    short = tmp_path / "short.out"
    short.write_text("x")
    began(written, 2, short, 0)
    began(written, 3, short, 100)
    notes = [piece.note for piece in pieces(written.run)]
    assert "No such file" in notes[0]
    assert "shorter than it was" in notes[2]
    assert [text_of(p) for p in pieces(written.run)][0::2] == ["", ""]


def test_a_session_without_a_supervisor_records_its_log_too_and_both_are_one(written, tmp_path):
    log = tmp_path / "x.out"
    log.write_text("a\nb\n")
    began(written, 1, log, 0)
    written.event(1, "claimed", log=[{"path": str(log), "offset": 2}, {"path": "relative", "offset": 0}, 7, {}])
    assert [text_of(p) for p in pieces(written.run)] == ["a\nb\n"]
    written.event(2, "claimed", log=[{"path": str(log), "offset": 2}])
    assert [text_of(p) for p in pieces(written.run)] == ["a\n", "b\n"]


def test_with_submitit_each_rank_has_a_file_of_its_own(written, tmp_path):
    piece = Piece(2, tmp_path / "12_0_log.out", 5)
    other = of_rank(piece, 3)
    assert (other.path.name, other.begin, other.whole) == ("12_3_log.out", 0, True)
    assert of_rank(piece, 0) == piece
    assert of_rank(Piece(1, tmp_path / "slurm-12.out"), 3).path.name == "slurm-12.out"


@pytest.mark.parametrize(
    ("lines", "rank"),
    [
        ([b"launch: hello\n", b" 0: a\n", b" 3: b\n", b"10: c\n"], 3),
        ([b"[1,0]<stdout>: a\n", b"[1,3]<stderr>:b\n", b"end\n"], 3),
        ([b"[prterun-host-12@1,3]<stdout>: b\n"], 3),
        ([b"[0] a\n", b"[3] b\n"], 3),
        ([b"[rank3]: Traceback\n", b"[rank3]:   File\n"], 3),
    ],
)
def test_the_marks_of_every_launcher_are_known(lines, rank):
    style = rank_of_line_style(lines)
    assert style is not None
    assert any((match := style.match(line)) and int(match[1]) == rank for line in lines)


def test_lines_without_marks_have_no_style():
    assert rank_of_line_style([b"step 12: loss 3\n", b"hello\n", b""]) is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([b"", b"a", b"bb\r", b"\n", b"\x1b[31m\n", b"x" * 50]), max_size=20),
       st.integers(0, 12), st.integers(1, 9), st.integers(0, 20))  # fmt: skip
def test_the_last_lines_are_those_that_reading_all_would_give(tmp_path, parts, count, block, begin):
    path = tmp_path / "log"
    data = b"".join(parts)
    path.write_bytes(data)
    piece = Piece(1, path, min(begin, len(data)))
    before, module.BLOCK = module.BLOCK, block
    try:
        every = list(lines_of(piece))
        assert b"".join(every) == data[piece.begin :]
        assert last_lines(piece, count) == every[len(every) - min(count, len(every)) :]
    finally:
        module.BLOCK = before


def test_the_end_of_a_gigabyte_is_read_at_once(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\none\ntwo\n")
    assert last_lines(Piece(1, path), 2) == [b"one\n", b"two\n"]


def test_output_that_goes_to_a_file_is_found_and_a_pipe_is_not(tmp_path):
    import json
    import subprocess
    import sys

    program = (
        "import json, sys; from hpcresume.io.outputs import output_files\n"
        "open(sys.argv[1], 'w').write(json.dumps(output_files()))"
    )
    log, found = tmp_path / "log |%j\n.out", tmp_path / "found"
    log.write_text("12345")
    for out, err, expected in (
        (log.open("ab"), subprocess.STDOUT, [{"path": str(log), "offset": 5}]),
        (subprocess.PIPE, subprocess.PIPE, []),
        (subprocess.PIPE, log.open("ab"), [{"path": str(log), "offset": 5}]),
    ):
        subprocess.run([sys.executable, "-c", program, str(found)], stdout=out, stderr=err, check=True, timeout=60)
        assert json.loads(found.read_text()) == expected
        for file in (out, err):
            if not isinstance(file, int):
                file.close()
    assert isinstance(output_files(), list)
