"""Reads what the session and earlier supervisors wrote about attempts. Tolerates torn and foreign lines."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.launch.journal import append_line
from hpcresume.model import Cause
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import Ending, Raised, SignalReceived

__all__ = ["close_predecessor", "committed_step", "last_decision", "past_attempts", "raised", "rank_warnings"]


def committed_step(attempt: AttemptPaths) -> int | None:
    """The newest step that the attempt committed, None without any."""
    steps = (line.get("step") for line in _lines(attempt.ledger, '"saved"') if line.get("event") == "saved")
    return max((step for step in steps if isinstance(step, int)), default=None)


def raised(attempt: AttemptPaths) -> Raised | None:
    """The first exception that any rank recorded."""
    try:
        ledgers = sorted(attempt.root.glob("ledger*.jsonl"))
    except OSError:
        return None
    found = [line for ledger in ledgers for line in _lines(ledger, '"exception"') if line["event"] == "exception"]
    if not found:
        return None
    first = min(found, key=lambda line: float(line.get("t") or 0.0))
    rank, step = first.get("rank"), first.get("step")
    return Raised(
        type=str(first.get("type") or "Exception"),
        message=str(first.get("message") or ""),
        rank=rank if isinstance(rank, int) else None,
        step=step if isinstance(step, int) else None,
    )


def rank_warnings(attempt: AttemptPaths) -> tuple[SignalReceived, ...]:
    """The warnings that the session recorded, in order."""
    found = []
    for line in _lines(attempt.ledger, '"warning"'):
        number, at = _signal_number(line.get("signal")), line.get("t")
        if line["event"] == "warning" and number is not None and isinstance(at, int | float):
            found.append(SignalReceived(number, float(at)))
    return tuple(found)


def past_attempts(run: RunPaths, before: int | None = None) -> tuple[PastAttempt, ...]:
    """The attempts of a run (those before number `before`), the newest last."""
    numbers = [n for n in run.attempt_numbers() if before is None or n < before]
    return tuple(_past(run.attempt(number), number) for number in numbers)


def last_decision(run: RunPaths) -> str:
    """What was decided after the newest attempt: "done", "come-back", "hold", or "" when nothing was."""
    past = past_attempts(run)
    return past[-1].decided if past else ""


def close_predecessor(run: RunPaths, number: int, *, restarted_job: str | None) -> PastAttempt | None:
    """Record how the attempt before `number` ended if its own supervisor could not; None when it had.

    Args:
        run: the run.
        number: the attempt that has just begun.
        restarted_job: the Slurm job's id if Slurm started this job before, else None.
    """
    numbers = [n for n in run.attempt_numbers() if n < number]
    if not numbers or _named(run.attempt(numbers[-1]), "ended"):
        return None
    before = run.attempt(numbers[-1])
    holder = _holding_job(before)
    ending = _infer(before, restarted_job is not None and holder in (None, restarted_job))
    committed = committed_step(before)
    for event in ({"event": "cause", "evidence": list(ending.evidence)}, {"event": "ended", "exit_code": None}):
        last = _last_time(before)
        append_line(
            before.supervisor,
            {"t": last, "mono": 0.0, **event, "cause": ending.cause.value, "committed": committed, "told_by": number},
        )
    return PastAttempt(numbers[-1], ending.cause, committed)


def _holding_job(attempt: AttemptPaths) -> str | None:
    """The Slurm job that claimed an attempt, "" outside Slurm, None when the claim cannot be read."""
    try:
        facts = json.loads(attempt.claim.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(facts, dict) or "job_id" not in facts:
        return None
    return str(facts["job_id"] or "")


def _infer(attempt: AttemptPaths, same_job: bool) -> Ending:
    known = _named(attempt, "cause")
    cause = _as_cause(known[-1].get("cause")) if known else None
    if cause is not None:
        return Ending(cause, tuple(map(str, known[-1].get("evidence") or ())))
    if same_job:
        began = "" if _named(attempt, "started") else ", before its first record,"
        why = f"the supervisor vanished{began} without a signal and Slurm started the job again: its node was lost"
        return Ending(Cause.NODE_FAILURE, (why,))
    if not _named(attempt, "started"):
        return Ending(Cause.UNKNOWN, ("no supervisor kept a record of this attempt",))
    return Ending(Cause.UNKNOWN, ("the supervisor vanished without a signal; somebody started the run again",))


def _past(attempt: AttemptPaths, number: int) -> PastAttempt:
    ended, decisions = _named(attempt, "ended", "cause"), _named(attempt, "decision")
    cause = _as_cause(ended[-1].get("cause")) if ended else None
    committed = ended[-1].get("committed") if ended else None
    return PastAttempt(
        attempt=number,
        cause=cause or Cause.UNKNOWN,
        committed=committed if isinstance(committed, int) else committed_step(attempt),
        decided=str(decisions[-1].get("decision") or "") if decisions else "",
    )


def _signal_number(name: object) -> int | None:
    """Of a name ("SIGUSR1") or a number."""
    if isinstance(name, int):
        return name
    return int(signal.Signals[name]) if isinstance(name, str) and name in signal.Signals.__members__ else None


def _named(attempt: AttemptPaths, *events: str) -> list[dict[str, Any]]:
    return [line for line in _lines(attempt.supervisor) if line["event"] in events]


def _last_time(attempt: AttemptPaths) -> float:
    """When the attempt was last heard of: its end is told with that time, not with ours."""
    times = [line.get("t") for path in (attempt.supervisor, attempt.ledger) for line in _lines(path)]
    return max((float(t) for t in times if isinstance(t, int | float)), default=0.0)


def _lines(path: Path, holding: str = "") -> Iterator[dict[str, Any]]:
    """Objects with an event, of the lines that hold a text (a cheap first look at long ledgers)."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    for line in data.split(b"\n"):
        if holding.encode() not in line:
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, Mapping) and isinstance(value.get("event"), str):
            yield dict(value)


def _as_cause(value: object) -> Cause | None:
    try:
        return Cause(value)
    except ValueError:
        return None
