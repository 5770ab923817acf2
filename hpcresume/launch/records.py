"""Reads what the session and earlier supervisors wrote about attempts. Tolerates torn and foreign lines."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.launch.journal import append_line
from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import Ending, Raised, SignalReceived

__all__ = [
    "close_predecessor",
    "committed_step",
    "last_decision",
    "lost_node",
    "nodes_of",
    "past_attempts",
    "raised",
    "rank_warnings",
    "requeue_accepted",
    "was_released",
]


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


def requeue_accepted(attempt: AttemptPaths) -> bool:
    """Has Slurm agreed to start the job of this attempt again?"""
    return any(line.get("result") == "accepted" for line in _named(attempt, "requeue"))


def past_attempts(run: RunPaths, before: int | None = None) -> tuple[PastAttempt, ...]:
    """The attempts of a run (those before number `before`), the newest last."""
    numbers = [n for n in run.attempt_numbers() if before is None or n < before]
    return tuple(_past(run.attempt(number), number) for number in numbers)


def last_decision(run: RunPaths) -> str:
    """What was decided after the newest attempt: "done", "come-back", "hold", or "" when nothing was."""
    past = past_attempts(run)
    return past[-1].decided if past else ""


def was_released(run: RunPaths, number: int, *, by_hand: bool) -> bool:
    """Has a person let the held run go on with attempt `number`?

    A job that stays in the queue, held, starts for no other reason.

    Args:
        run: the run.
        number: the attempt that has just begun.
        by_hand: it was submitted anew, or with --release, and not started again by Slurm itself.
    """
    numbers = [n for n in run.attempt_numbers() if n < number]
    before = _past(run.attempt(numbers[-1]), numbers[-1]) if numbers else None
    return before is not None and before.decided == Decision.HOLD.value and (before.kept or by_hand)


def lost_node(run: RunPaths, number: int) -> tuple[str, float] | None:
    """The node that was lost under the attempt before `number` together with its supervisor, and when; else None."""
    numbers = [n for n in run.attempt_numbers() if n < number]
    if not numbers:
        return None
    before = run.attempt(numbers[-1])
    ended, started = _named(before, "ended"), _named(before, "started")
    if not ended or not started or ended[-1].get("told_by") != number:
        return None
    node, at = started[-1].get("node"), ended[-1].get("t")
    if _as_cause(ended[-1].get("cause")) is not Cause.NODE_FAILURE or not isinstance(node, str):
        return None
    return (node, float(at)) if isinstance(at, int | float) else None


def nodes_of(attempt: AttemptPaths) -> str:
    """The nodes that an attempt ran on, in Slurm's compressed form; "" when not recorded."""
    started = _named(attempt, "started")
    nodes = started[-1].get("nodes") if started else None
    return nodes if isinstance(nodes, str) else ""


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
    lines = list(_lines(attempt.supervisor))
    by_name: dict[str, dict[str, Any]] = {line["event"]: line for line in lines}
    ended: dict[str, Any] = next((line for line in reversed(lines) if line["event"] in ("ended", "cause")), {})
    # `hpcresume requeue` adds a decision of its own for sessions; what was decided at the end stays what it was.
    decided: dict[str, Any] = next(
        (line for line in reversed(lines) if line["event"] == "decision" and not line.get("released")), {}
    )
    committed = ended.get("committed")
    return PastAttempt(
        attempt=number,
        cause=_as_cause(ended.get("cause")) or Cause.UNKNOWN,
        committed=committed if isinstance(committed, int) else committed_step(attempt),
        decided=str(decided.get("decision") or ""),
        memory=ended.get("memory") is True,
        released="released" in by_name,
        kept=by_name.get("held", {}).get("result") == "accepted",
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
