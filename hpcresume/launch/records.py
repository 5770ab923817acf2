"""Reads what the session and earlier supervisors wrote about attempts. Tolerates torn and foreign lines."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import ENDS_JOB, Raised, SignalReceived
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = [
    "as_cause",
    "awaited_until",
    "claim_of",
    "committed_step",
    "ends_heard",
    "holding_job",
    "last_decision",
    "lines_of",
    "named",
    "nodes_of",
    "overtaken",
    "past_attempts",
    "raised",
    "rank_warnings",
    "received",
    "refused_requeue",
    "requeue_accepted",
    "stuck_in_files",
    "was_released",
]


_ON_FILES = ("open the run", "probe", "restore", "save step", "write DONE")
"""Beginnings of what ranks wait for (session: the names of watchdog guards) while they have nothing to do but files."""


TOGETHER = 0.001
"""Seconds by which a warning is put before the end that was heard with it."""


def committed_step(attempt: AttemptPaths) -> int | None:
    """The newest step that the attempt committed, None without any."""
    steps = (line.get("step") for line in lines_of(attempt.ledger, '"saved"') if line.get("event") == "saved")
    return max((step for step in steps if isinstance(step, int)), default=None)


def raised(attempt: AttemptPaths) -> Raised | None:
    """The first exception that any rank recorded."""
    try:
        ledgers = sorted(attempt.root.glob("ledger*.jsonl"))
    except OSError:
        return None
    found = [line for ledger in ledgers for line in lines_of(ledger, '"exception"') if line["event"] == "exception"]
    if not found:
        return None
    first = min(found, key=lambda line: float(line.get("t") or 0.0))
    rank, step = first.get("rank"), first.get("step")
    return Raised(
        type=str(first.get("type") or "Exception"),
        message=str(first.get("message") or ""),
        rank=rank if isinstance(rank, int) else None,
        step=step if isinstance(step, int) else None,
        host=str(first["host"]) if first.get("host") else None,
        at=float(first["t"]) if isinstance(first.get("t"), int | float) else None,
    )


def stuck_in_files(attempt: AttemptPaths) -> str:
    """Which ranks did not come out of a save, a restore or the like, in the words of one that waited; "" if none.

    In such a phase a rank does nothing but work on files, so one that is missing hangs in the filesystem; or its whole
    node is gone, which Slurm knows.
    """
    try:
        ledgers = sorted(attempt.root.glob("ledger*.jsonl"))
    except OSError:
        return ""
    for ledger in ledgers:
        for line in lines_of(ledger, '"ranks-missing"'):
            phase, seconds = str(line.get("waiting_for") or ""), line.get("seconds")
            if line["event"] != "ranks-missing" or not phase.startswith(_ON_FILES) or not line.get("missing"):
                continue
            ranks = ", ".join(str(rank) for rank in line["missing"])
            after = f" after {seconds:g} s" if isinstance(seconds, int | float) else ""
            return f"rank {ranks} did not come out of {phase!r}{after}: the filesystem does not answer on that node"
    return ""


def rank_warnings(attempt: AttemptPaths) -> tuple[SignalReceived, ...]:
    """The warnings that the session recorded, in order.

    Of signals that came together nobody knows the order (the kernel delivers the lower number first): a warning is
    taken to have been sent before the end that came with it, as Slurm does without any grace.
    """
    found = []
    for line in lines_of(attempt.ledger, '"warning"'):
        at = line.get("t")
        if line["event"] != "warning" or not isinstance(at, int | float):
            continue
        heard = line.get("heard")
        names = [line.get("signal"), *(heard if isinstance(heard, list) else [])]
        numbers = {number for number in map(_signal_number, names) if number is not None}
        ends = numbers & ENDS_JOB
        found += [SignalReceived(number, float(at) - TOGETHER * bool(ends)) for number in sorted(numbers - ends)]
        found += [SignalReceived(number, float(at)) for number in sorted(ends)]
    return tuple(found)


def ends_heard(attempt: AttemptPaths) -> tuple[SignalReceived, ...]:
    """The signals that end a job as rank 0 got them, written down at once: before any step boundary."""
    found = []
    for line in lines_of(attempt.ledger, '"end-heard"'):
        number, at = _signal_number(line.get("signal")), line.get("t")
        if line["event"] == "end-heard" and number is not None and isinstance(at, int | float):
            found.append(SignalReceived(number, float(at)))
    return tuple(found)


def received(attempt: AttemptPaths) -> tuple[SignalReceived, ...]:
    """The signals that its supervisor recorded, in order."""
    found = []
    for line in named(attempt, "warning-received"):
        number, at = _signal_number(line.get("signal")), line.get("at")
        if number is not None and isinstance(at, int | float):
            found.append(SignalReceived(number, float(at)))
    return tuple(found)


def requeue_accepted(attempt: AttemptPaths) -> bool:
    """Has Slurm agreed to start the job of this attempt again, at once or when a person releases it?"""
    return any(line.get("result") == "accepted" for line in named(attempt, "requeue", "held"))


def awaited_until(attempt: AttemptPaths) -> float | None:
    """Until when, seconds since the epoch, who keeps the record waits for Slurm to end the job; None: not at all."""
    until = [line.get("until") for line in named(attempt, "awaits-end")][-1:]
    return float(until[0]) if until and isinstance(until[0], int | float) else None


def refused_requeue(attempt: AttemptPaths) -> str:
    """What Slurm said when it was asked to start the job again and did not agree; "" when it was not, or did."""
    for line in named(attempt, "requeue")[-1:]:
        if line.get("result") != "accepted":
            return f"requeue {line.get('result')}: {line.get('detail')}"
    return ""


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


def nodes_of(attempt: AttemptPaths) -> str:
    """The nodes that an attempt ran on, in Slurm's compressed form; "" when not recorded."""
    told = named(attempt, "started") or [e for e in lines_of(attempt.ledger, '"claimed"') if e["event"] == "claimed"]
    nodes = told[-1].get("nodes") if told else None
    return nodes if isinstance(nodes, str) else ""


def holding_job(attempt: AttemptPaths) -> str | None:
    """The Slurm job that claimed an attempt, "" outside Slurm, None when the claim cannot be read."""
    facts = claim_of(attempt)
    return None if facts is None or "job_id" not in facts else str(facts["job_id"] or "")


def overtaken(run: RunPaths, number: int, slurm: SlurmEnvironment) -> bool:
    """Has another start, of this job or of another one, claimed an attempt after `number`, which this start has?

    What this very start claims after its session (`hr.save` does) overtakes nothing.
    """
    try:
        newer = [claim_of(run.attempt(each)) for each in run.attempt_numbers() if each > number]
    except OSError:
        return False
    mine = (slurm.job_id, slurm.restart_count)
    return any(each is not None and (each.get("job_id"), each.get("restart")) != mine for each in newer)


def claim_of(attempt: AttemptPaths) -> dict[str, Any] | None:
    """What claim.json says, None when it cannot be read."""
    try:
        facts = json.loads(attempt.claim.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _past(attempt: AttemptPaths, number: int) -> PastAttempt:
    lines = list(lines_of(attempt.supervisor))
    by_name: dict[str, dict[str, Any]] = {line["event"]: line for line in lines}
    ended: dict[str, Any] = next((line for line in reversed(lines) if line["event"] in ("ended", "cause")), {})
    # `hpcresume requeue` adds a decision of its own for sessions; what was decided at the end stays what it was.
    decided: dict[str, Any] = next(
        (line for line in reversed(lines) if line["event"] == "decision" and not line.get("released")), {}
    )
    committed = ended.get("committed")
    return PastAttempt(
        attempt=number,
        cause=as_cause(ended.get("cause")) or Cause.UNKNOWN,
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


def named(attempt: AttemptPaths, *events: str) -> list[dict[str, Any]]:
    """The lines of the supervisor's record with these events, in order."""
    return [line for line in lines_of(attempt.supervisor) if line["event"] in events]


def lines_of(path: Path, holding: str = "") -> Iterator[dict[str, Any]]:
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


def as_cause(value: object) -> Cause | None:
    """The cause of that name, None when there is none."""
    try:
        return Cause(value)
    except ValueError:
        return None
