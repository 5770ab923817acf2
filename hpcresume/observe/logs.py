"""Which part of which log file belongs to which attempt, and its lines.

Supervisor and session record the files behind their standard output, and how long those were when they began. So a
log that all attempts append to is cut where each of them began; one that was begun anew each time is known to be so.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hpcresume.io.paths import RunPaths
from hpcresume.observe.ledger_reader import Record, read_ledger, read_supervisor

__all__ = ["Piece", "has_file_of_rank", "last_lines", "lines_of", "of_rank", "pieces", "rank_of_line_style"]

BLOCK = 1 << 20
"""Bytes read at once."""

_SUBMITIT = re.compile(r"_([0-9]+)_log\.(out|err)")
"""submitit's files of one task: JOB_TASK_log.out."""

_LABELS = {
    "srun --label": re.compile(rb" *([0-9]+): ?"),
    "mpiexec --tag-output": re.compile(rb"\[(?:[^\]\s]*@)?[0-9]+,([0-9]+)\]<std(?:out|err)>: ?"),
    "mpiexec -l": re.compile(rb"\[([0-9]+)\] "),
    "torch": re.compile(rb"\[rank([0-9]+)\]: ?"),
}
"""How launchers mark each line with its rank, by the option that asks them to."""


@dataclass(frozen=True)
class Piece:
    """Bytes `begin` to `end` (None: to the end of the file) of a log.

    Attributes:
        attempt: whose they are; 0: of a job that has begun no attempt.
        path: the file.
        begin, end: where in it.
        whole: is it the file of one rank, with all attempts in it?
        note: what a reader must know: that the text is gone, say.
    """

    attempt: int
    path: Path
    begin: int = 0
    end: int | None = None
    whole: bool = False
    note: str = ""


def pieces(run: RunPaths, only: int | None = None) -> list[Piece]:
    """The parts of all logs that a run's attempts recorded, in the order of the attempts.

    Args:
        run: the run.
        only: the one attempt wanted; None: all.

    Raises:
        OSError: a ledger is there and cannot be read.
    """
    found: list[Piece] = []
    for number in run.attempt_numbers():
        paths = run.attempt(number)
        named: dict[str, int] = {}
        for record in (*read_supervisor(paths), *read_ledger(paths)):
            if record.event in ("started", "claimed"):
                for path, offset in _recorded(record):
                    named.setdefault(path, offset)
        found += [Piece(number, Path(path), offset) for path, offset in named.items()]
    cut = [_cut(piece, found) for piece in found]
    return [piece for piece in cut if only in (None, piece.attempt)]


def _recorded(record: Record) -> Iterator[tuple[str, int]]:
    listed = record.fields.get("log")
    for each in listed if isinstance(listed, list) else ():
        path, offset = (each.get("path"), each.get("offset")) if isinstance(each, dict) else (None, None)
        if isinstance(path, str) and path.startswith("/") and isinstance(offset, int):
            yield path, max(0, offset)


def _cut(piece: Piece, every: list[Piece]) -> Piece:
    """Where the next attempt's part of the same file begins, this one's ends."""
    same = [each for each in every if each.path == piece.path]
    earlier = any(each.attempt < piece.attempt for each in same)
    later = next((each for each in same if each.attempt > piece.attempt), None)
    # What the batch script said before the supervisor began is shown with the first attempt.
    begin = piece.begin if earlier else 0
    if later is not None and later.begin <= piece.begin:
        note = f"attempt {later.attempt} began this file anew, so its text is gone; --open-mode=append keeps it"
        return replace(piece, begin=0, end=0, note=note)
    if earlier and any(each.begin >= piece.begin for each in same if each.attempt < piece.attempt):
        begin = 0
    try:
        size = piece.path.stat().st_size
    except OSError as error:
        return replace(piece, begin=begin, end=0, note=f"it cannot be read: {error.strerror}")
    if begin > size:
        return replace(piece, begin=0, end=0, note="the file is shorter than it was: its text is gone")
    return replace(piece, begin=begin, end=later.begin if later is not None else None)


def of_rank(piece: Piece, rank: int) -> Piece:
    """The same, of one rank, where every rank has a file of its own (submitit); else as it is."""
    match = _SUBMITIT.search(piece.path.name)
    if match is None or match.end() != len(piece.path.name) or int(match[1]) == rank:
        return piece
    name = f"{piece.path.name[: match.start()]}_{rank}_log.{match[2]}"
    return Piece(piece.attempt, piece.path.with_name(name), whole=True)


def has_file_of_rank(piece: Piece) -> bool:
    """Is it the file of one rank alone?"""
    return _SUBMITIT.search(piece.path.name) is not None


def lines_of(piece: Piece) -> Iterator[bytes]:
    """Its lines with their line breaks; the last one may have none. Read as they are taken.

    Raises:
        OSError: the file cannot be read.
    """
    rest = b""
    for block in _blocks(piece):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _blocks(piece: Piece) -> Iterator[bytes]:
    if piece.end == 0:
        return
    with piece.path.open("rb") as file:
        file.seek(piece.begin)
        left = None if piece.end is None else piece.end - piece.begin
        while left is None or left > 0:
            block = file.read(BLOCK if left is None else min(BLOCK, left))
            if not block:
                return
            left = None if left is None else left - len(block)
            yield block


def last_lines(piece: Piece, count: int) -> list[bytes]:
    """Its last lines: from the end backwards, so that a long log costs nothing.

    Raises:
        OSError: the file cannot be read.
    """
    if count <= 0 or piece.end == 0:
        return []
    with piece.path.open("rb") as file:
        end = file.seek(0, 2) if piece.end is None else piece.end
        begin, data = end, b""
        while begin > piece.begin and data.count(b"\n") <= count:
            size = min(BLOCK, begin - piece.begin)
            begin -= size
            file.seek(begin)
            data = file.read(size) + data
    return list(deque(_split(data), maxlen=count))


def _split(data: bytes) -> list[bytes]:
    """At line feeds alone: a progress bar's carriage returns end no line."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def rank_of_line_style(lines: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """How these lines are marked with their ranks, None when they are not: the way that most of them follow."""
    counts = dict.fromkeys(_LABELS, 0)
    for line in lines:
        for name, pattern in _LABELS.items():
            counts[name] += pattern.match(line) is not None
    best = max(counts, key=lambda name: counts[name])
    return _LABELS[best] if counts[best] else None
