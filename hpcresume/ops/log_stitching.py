"""The logs of a run as one text: a mark for each attempt, then its lines; and what is appended later."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.errors import ConfigError, RunDirectoryError
from hpcresume.io.paths import RunPaths
from hpcresume.model import Decision
from hpcresume.observe.facts import read_facts
from hpcresume.observe.glance import glance
from hpcresume.observe.instants import date_and_time
from hpcresume.observe.lines import read_json_object
from hpcresume.observe.logs import Piece, has_file_of_rank, last_lines, lines_of, of_rank, pieces, rank_of_line_style
from hpcresume.ops.submitted import log_of_job, read_submission, submitted_log
from hpcresume.ops.targets import typed
from hpcresume.slurm.orders import output_pattern

__all__ = ["Wanted", "as_json", "find_pieces", "follow", "mark", "stitched"]

LOOK_EVERY = 0.5
"""Seconds between looks at a log that is followed."""
LAST_LOOKS = 4
"""Looks without anything new after the run is over, before a follower leaves."""


@dataclass(frozen=True)
class Wanted:
    """Which lines: of one attempt, of one rank, so many of the last; None is no limit."""

    attempt: int | None = None
    rank: int | None = None
    last: int | None = None


def find_pieces(run: RunPaths, wanted: Wanted) -> list[Piece]:
    """The parts of logs that are wanted.

    Raises:
        ConfigError: there is no such attempt.
        RunDirectoryError: no log is known, or the ledgers cannot be read.
    """
    with typed(run):
        numbers = run.attempt_numbers()
        if wanted.attempt is not None and wanted.attempt not in numbers:
            hint = f"1 to {numbers[-1]}" if numbers else "the run has none yet"
            raise ConfigError(f"there is no attempt {wanted.attempt}", where=str(run.root), hint=hint)
        found = pieces(run, wanted.attempt)
        if wanted.attempt is None:
            found += _of_the_job(run, found)
        elif not found:
            found = _of_claim(run, wanted.attempt)
    if not found:
        raise RunDirectoryError(
            "no log is known: the output of this run went to a terminal or a pipe, or an older hpcresume wrote it",
            where=str(run.root),
            hint="scontrol show job JOB names the log of a Slurm job",
        )
    if wanted.rank is not None:
        found = list(dict.fromkeys(of_rank(piece, wanted.rank) for piece in found))
    return _whole_once(found)


def _of_the_job(run: RunPaths, known: Sequence[Piece]) -> list[Piece]:
    """The log of the job that was submitted last, if no attempt has named it: it may never have come so far."""
    submission = read_submission(run.root)
    if submission is None:
        return [] if known else _of_claim(run, max(run.attempt_numbers(), default=0))
    path = submitted_log(submission)
    if path is None and not known:
        path = _asked_for(submission.job_id)
    paths = {piece.path for piece in known}
    return [Piece(0, path)] if path is not None and path not in paths and path.is_file() else []


def _of_claim(run: RunPaths, number: int) -> list[Piece]:
    """Of an attempt that recorded none, for instance behind a pipe: the job's, as Slurm knows it."""
    if number < 1:
        return []
    job = read_json_object(run.attempt(number).claim).get("job_id")
    path = _asked_for(job) if isinstance(job, str) else None
    return [Piece(number, path)] if path is not None and path.is_file() else []


def _asked_for(job_id: str) -> Path | None:
    pattern = output_pattern(job_id)
    return None if pattern is None else log_of_job(pattern, job_id)


def _whole_once(found: Sequence[Piece]) -> list[Piece]:
    """A rank's file with all attempts in it is shown once."""
    seen: set[Path] = set()
    kept = []
    for piece in found:
        if not piece.whole or piece.path not in seen:
            kept.append(piece)
        seen.add(piece.path)
    return kept


def mark(run: RunPaths, piece: Piece) -> str:
    """The line above a part: whose it is, when it began, how it ended."""
    if piece.whole:
        return f"==> all attempts of this rank: {piece.path} <=="
    if piece.attempt == 0:
        what = "a program without a session" if run.done.is_file() else "no attempt has begun"
        return f"==> {what}: {piece.path} <=="
    claim = read_json_object(run.attempt(piece.attempt).claim)
    facts = read_facts(run, piece.attempt)
    job, restart = claim.get("job_id"), claim.get("restart")
    words = [f"attempt {piece.attempt}"]
    if job:
        words.append(f"job {job}" + (f" start {int(restart) + 1}" if isinstance(restart, int) and restart else ""))
    if facts.began is not None:
        words.append(date_and_time(facts.began))
    words.append(f"from {facts.restored_from}" if facts.restored_from else "from nothing")
    if facts.cause is not None:
        words.append(f"ended: {facts.cause.value}")
    return f"==> {' · '.join(words)} · {piece.path} <=="


def stitched(run: RunPaths, found: Sequence[Piece], wanted: Wanted) -> Iterator[tuple[Piece, Iterator[bytes]]]:
    """Each part with its lines, in order. Where only the last lines are wanted, parts without one are left out.

    Raises:
        ConfigError: a rank is wanted, and the log does not say which lines are whose.
        RunDirectoryError: a log cannot be read.
    """
    with typed(run):
        if wanted.last is None:
            for piece in found:
                yield piece, _chosen(piece, wanted.rank)
            return
        left, taken = wanted.last, deque[tuple[Piece, list[bytes]]]()
        for piece in reversed(found):
            lines = _last_of(piece, wanted.rank, left)
            if lines or piece.note:
                taken.appendleft((piece, lines))
            left -= len(lines)
            if left <= 0:
                break
        yield from ((piece, iter(lines)) for piece, lines in taken)


def _last_of(piece: Piece, rank: int | None, count: int) -> list[bytes]:
    if rank is None or has_file_of_rank(piece):
        return last_lines(piece, count)
    return list(deque(_chosen(piece, rank), maxlen=count)) if count > 0 else []


def _chosen(piece: Piece, rank: int | None) -> Iterator[bytes]:
    if rank is None or has_file_of_rank(piece):
        return lines_of(piece)
    style = rank_of_line_style(lines_of(piece))
    if style is None:
        if not any(True for _ in lines_of(piece)):
            return iter(())
        raise _unmarked(piece, rank)
    return _of_rank(lines_of(piece), style, rank)


def _unmarked(piece: Piece, rank: int) -> ConfigError:
    return ConfigError(
        f"the lines of this log do not say which of them are rank {rank}'s",
        where=str(piece.path),
        hint="for the next attempts: hpcresume launch --option=--label (srun) or --option=--tag-output (mpiexec)",
    )


def _of_rank(lines: Iterator[bytes], style: re.Pattern[bytes], rank: int) -> Iterator[bytes]:
    for line in lines:
        match = style.match(line)
        if match is not None and int(match[1]) == rank:
            yield line[match.end() :]


def follow(run: RunPaths, wanted: Wanted, show: Callable[[Piece, Sequence[bytes]], None]) -> None:
    """Show what there is, then what is appended, attempts that begin meanwhile included, until the run is over.

    Over is: it is done, or its newest attempt is held. `show` is called with the lines of one part.

    Raises:
        ConfigError, RunDirectoryError: as for `find_pieces` and `stitched`.
    """
    found = find_pieces(run, wanted)
    reached = {_key(piece): _size(piece) for piece in found}
    for piece, lines in stitched(run, found, wanted):
        show(piece, [*lines])
    style = None if wanted.rank is None else _style_of(found)
    quiet = 0
    while quiet < LAST_LOOKS:
        time.sleep(LOOK_EVERY)
        over, news = _over(run), False
        for piece in find_pieces(run, wanted):
            start = reached.get(_key(piece), piece.begin)
            size = _size(piece)
            if size > start and piece.note == "":
                complete, end = _complete(Piece(piece.attempt, piece.path, start, size), final=over)
                reached[_key(piece)] = end
                news = news or bool(complete)
                kept = complete if style is None else [*_of_rank(iter(complete), style, wanted.rank or 0)]
                if kept:
                    show(piece, kept)
        quiet = quiet + 1 if over and not news else 0


def _key(piece: Piece) -> tuple[int, Path]:
    return piece.attempt, piece.path


def _style_of(found: Sequence[Piece]) -> re.Pattern[bytes] | None:
    if any(has_file_of_rank(piece) for piece in found):
        return None
    styles = (rank_of_line_style(lines_of(piece)) for piece in reversed(found))
    return next((style for style in styles if style is not None), None)


def _size(piece: Piece) -> int:
    """Where a part ends now."""
    if piece.end is not None:
        return piece.end
    try:
        return piece.path.stat().st_size
    except OSError:
        return piece.begin


def _complete(piece: Piece, *, final: bool) -> tuple[list[bytes], int]:
    """The whole lines, and where they end: a line that is being written waits for its end."""
    lines = list(lines_of(piece))
    if lines and not lines[-1].endswith(b"\n") and not final:
        lines.pop()
    return lines, piece.begin + sum(map(len, lines))


def _over(run: RunPaths) -> bool:
    seen = glance(run.root)
    held = seen.newest is not None and seen.newest.decided == Decision.HOLD.value and seen.newest.ended
    return seen.done or held


def as_json(run: RunPaths, found: Sequence[Piece], wanted: Wanted) -> dict[str, Any]:
    """The object that `hpcresume logs --json` prints; its keys are documented in the verb's help."""
    return {
        "run": str(run.root),
        "parts": [
            {
                "attempt": piece.attempt or None,
                "path": str(piece.path),
                "note": piece.note,
                "lines": [line.decode(errors="replace").rstrip("\n") for line in lines],
            }
            for piece, lines in stitched(run, found, wanted)
        ],
    }
