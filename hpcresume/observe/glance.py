"""A run at a glance: what a few small reads of its files tell, however long it is and however much it has logged.

For tables of many runs. Reads of long files their ends only, and no manifest: what it says of a generation is that it
was committed, not that it verifies. `history` reads everything.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.checkpoint.attempts import Holder
from hpcresume.checkpoint.lineage import lineage
from hpcresume.io.ends import read_ends
from hpcresume.io.hints import hint_for
from hpcresume.io.paths import AttemptPaths, RunPaths, generation_name, parse_generation_name
from hpcresume.model import FORMAT_VERSION, Cause
from hpcresume.observe.facts import gather, step_of_progress
from hpcresume.observe.history import assemble
from hpcresume.observe.ledger_reader import Record, as_record

__all__ = ["Glance", "Newest", "glance"]

HEAD = 16 * 1024
"""Bytes from the beginning of a ledger in which the restore stands."""
TAIL = 16 * 1024
"""Bytes from the end of a ledger in which the last events stand."""

_TELLING = re.compile(
    rb'"event": ?"(?:cause|decision|ended|exception|finished|fresh-start|held|lead|made-from|requeue|restored|'
    rb'resubmitted|stands-behind|warning)"'
)
"""Events that a glance goes by; all other lines are passed over unread."""


@dataclass(frozen=True)
class Newest:
    """The newest attempt. Times are seconds since the epoch.

    Attributes:
        attempt: its number.
        holder: who claimed it; None when the claim cannot be read.
        claimed_at: when, None as above.
        step: steps that are finished, of the whole run.
        total: steps that the run shall have, None while not known.
        warned: was the session told that time is short?
        cause: why it ended, None while nothing says so.
        evidence: of the cause.
        decided: "done", "come-back", "hold", or "" while nothing is decided.
        reason: of the decision.
        requeue: Slurm's answer to the wish to start the job again: "accepted", "refused", "unavailable", "" without.
        kept: was it held, and its job stays in the queue until somebody releases it?
        other_jobs: further jobs of the run that its supervisor submitted: to go on instead, or to stand behind.
        lead: seconds before the end of its allocation at which the ranks are told, as measured; None while not known.
        ended: did its supervisor see its end?
        made_from: what the stages before it had ended as when it began.
        last_sign: when any of its files last changed.
    """

    attempt: int
    holder: Holder | None = None
    claimed_at: float | None = None
    step: int = 0
    total: int | None = None
    warned: bool = False
    cause: Cause | None = None
    evidence: tuple[str, ...] = ()
    decided: str = ""
    reason: str = ""
    requeue: str = ""
    kept: bool = False
    other_jobs: tuple[str, ...] = ()
    lead: float | None = None
    ended: bool = False
    made_from: tuple[Mapping[str, Any], ...] = ()
    last_sign: float = 0.0


@dataclass(frozen=True)
class Glance:
    """A run. `problem` is why it cannot be read, and all else is then unknown.

    Attributes:
        root: its directory.
        done: is it finished?
        attempts: how many there are.
        newest: the newest attempt, None before the first.
        generation: the newest committed generation of the lineage, None without any.
        generation_step: its step.
        committed_at: about when it was committed, seconds since the epoch.
        lost: steps worked in vain, over all attempts.
        problem: why the run cannot be read, "" when it can.
        held_generations: how many generations are there.
        done_facts: what DONE says.
        made_from: of a stage, the runs of the stages before it as its newest attempt found them.
    """

    root: Path
    done: bool = False
    attempts: int = 0
    newest: Newest | None = None
    generation: str | None = None
    generation_step: int | None = None
    committed_at: float | None = None
    lost: int = 0
    problem: str = ""
    held_generations: int = 0
    done_facts: Mapping[str, Any] = field(default_factory=dict)
    made_from: tuple[Mapping[str, Any], ...] = ()


def glance(root: Path) -> Glance:
    """Look at a run. Never raises: what cannot be read is a `problem`."""
    try:
        return _glance(RunPaths(root))
    except OSError as error:
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(root) else ""
        hint = hint_for(error.errno, otherwise="look at the filesystem")
        return Glance(root, problem=f"cannot be read: {error.strerror or error}{where}; try: {hint}")


def _glance(run: RunPaths) -> Glance:
    data = _read(run.run_json)
    if data is None:
        if not run.root.is_dir():
            raise NotADirectoryError(errno.ENOENT, os.strerror(errno.ENOENT), str(run.root))
        done = _read(run.done)  # a stage that is a program without a session leaves this alone
        facts = _object(done)
        return Glance(run.root, done=done is not None, done_facts=facts, made_from=_made_from(facts.get("made_from")))
    problem = _wrong_format(data)
    if problem:
        return Glance(run.root, problem=problem)
    done = _read(run.done)
    numbers = _attempts(run.attempts)
    committed = _committed(run.generations)
    starts = {number: _object(_read(run.attempt(number).start)) for number in numbers}
    newest = _newest(run.attempt(numbers[-1]), numbers[-1], starts[numbers[-1]], committed) if numbers else None
    chain = lineage(committed, {n: _start(facts) for n, facts in starts.items() if facts})
    name = chain[0] if chain else None
    return Glance(
        root=run.root,
        done=done is not None,
        attempts=len(numbers),
        newest=newest,
        generation=name,
        generation_step=_step(name),
        committed_at=_changed(run.generations / name) if name else None,
        lost=_lost(run, numbers, starts, committed, newest, done is not None),
        held_generations=len(committed),
        done_facts=_object(done),
        made_from=newest.made_from if newest is not None else (),
    )


def _wrong_format(data: bytes) -> str:
    facts = _object(data)
    version = facts.get("format_version")
    if type(version) is not int:
        return "run.json is damaged; try: restore it from a backup"
    if version != FORMAT_VERSION:
        return f"has format version {version}; this hpcresume reads version {FORMAT_VERSION}"
    return ""


def _attempts(directory: Path) -> list[int]:
    return sorted(int(name) for name in _names(directory) if name.isdecimal() and len(name) >= 4)


def _committed(directory: Path) -> list[tuple[int, int]]:
    return sorted(pair for name in _names(directory) if (pair := parse_generation_name(name)))


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _start(facts: Mapping[str, Any]) -> str | None:
    name = facts.get("generation")
    return name if isinstance(name, str) and parse_generation_name(name) else None


def _step(name: str | None) -> int | None:
    parsed = parse_generation_name(name) if name else None
    return parsed[0] if parsed else None


def _lost(
    run: RunPaths,
    numbers: Sequence[int],
    starts: Mapping[int, Mapping[str, Any]],
    committed: Sequence[tuple[int, int]],
    newest: Newest | None,
    done: bool,
) -> int:
    """As `history` counts them, from starts, progress and the names of generations alone."""
    facts = []
    for number in numbers:
        last = number == numbers[-1] and newest is not None
        made = [Record(0.0, "saved", _named(step, number)) for step, by in committed if by == number]
        cause = newest.cause if last and newest is not None else Cause.UNKNOWN
        step = newest.step if last and newest is not None else step_of_progress(_read(run.attempt(number).progress))
        ends = [Record(0.0, "ended", {"cause": cause.value})] if cause is not None else []
        facts.append(
            gather(number, ledger=made, supervisor=ends, metrics=(), start=dict(starts[number]), decision={},
                   progress=step)
        )  # fmt: skip
    return assemble(facts, done=done).lost_steps


def _named(step: int, attempt: int) -> dict[str, Any]:
    return {"step": step, "generation": generation_name(step, attempt)}


def _newest(paths: AttemptPaths, number: int, start: Mapping[str, Any], committed: Sequence[tuple[int, int]]) -> Newest:
    claim = _object(_read(paths.claim))
    head, tail = _ends(paths.ledger)
    session = [*head, *tail]
    opening, supervisor = _ends(paths.supervisor)
    decision = _object(_read(paths.decision))
    facts = gather(number, ledger=session, supervisor=supervisor, metrics=(), start=dict(start), decision=decision,
                   progress=step_of_progress(_read(paths.progress)))  # fmt: skip
    said = [r for r in supervisor if r.event == "decision"]
    last = said[-1].fields if said else decision
    answers = [r.text("result") for r in supervisor if r.event == "requeue"]
    signs = [_changed(path) for path in (paths.claim, paths.progress, paths.ledger, paths.supervisor)]
    return Newest(
        attempt=number,
        holder=_holder(claim),
        claimed_at=_number(claim.get("time")),
        step=max([facts.end_step, *(step for step, by in committed if by == number)]),
        total=_total(session),
        warned=facts.warnings > 0,
        cause=facts.cause,
        evidence=facts.evidence,
        decided=str(last.get("decision") or ""),
        reason=str(last.get("reason") or ""),
        requeue=answers[-1] if answers else "",
        kept=any(r.event == "held" and r.text("result") == "accepted" for r in supervisor),
        other_jobs=_other_jobs(supervisor),
        lead=next((r.number("seconds") for r in reversed(supervisor) if r.event == "lead"), None),
        ended=any(r.event == "ended" for r in supervisor),
        made_from=_made_from([r.fields for r in (*opening, *supervisor) if r.event == "made-from"]),
        last_sign=max((each for each in signs if each is not None), default=0.0),
    )


def _made_from(value: object) -> tuple[Mapping[str, Any], ...]:
    """Stage, run, attempt, step and generation of each."""
    kept = ("stage", "run", "attempt", "step", "generation", "job_id", "finished_at")
    entries = value if isinstance(value, list) else []
    return tuple({key: each[key] for key in kept if key in each} for each in entries if isinstance(each, Mapping))


def _other_jobs(supervisor: Sequence[Record]) -> tuple[str, ...]:
    named = (r.text("job_id") for r in reversed(supervisor) if r.event in ("resubmitted", "stands-behind"))
    return tuple(dict.fromkeys(job_id for job_id in named if job_id))


def _total(records: Sequence[Record]) -> int | None:
    found = [r.number("total_steps") for r in records if r.event in ("restored", "fresh-start")]
    return int(found[-1]) if found and found[-1] >= 1 else None


def _holder(claim: Mapping[str, Any]) -> Holder | None:
    try:
        names = ("job_id", "restart", "host", "boot_id", "pid", "pid_start")
        return Holder(**{name: claim[name] for name in names}, holds=bool(claim.get("holds", True)))
    except KeyError:
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _changed(path: Path) -> float | None:
    try:
        return min(os.stat(path).st_mtime, time.time())
    except OSError:
        return None


def _ends(path: Path) -> tuple[list[Record], list[Record]]:
    """The events at the beginning of a ledger and those at its end, none twice."""
    try:
        head, tail = read_ends(path, HEAD, TAIL)
    except FileNotFoundError:
        return [], []
    return _records(head), _records(tail)


def _records(data: bytes) -> list[Record]:
    found = (as_record(_object(line)) for line in data.split(b"\n") if _TELLING.search(line))
    return [record for record in found if record is not None]


def _read(path: Path) -> bytes | None:
    """A small file, None when it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        parts = []
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _object(data: bytes | None) -> dict[str, Any]:
    """A JSON object; empty when it is none."""
    if data:
        with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            value = msgspec.json.decode(data)
            if isinstance(value, dict):
                return value
    return {}
