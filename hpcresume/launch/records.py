"""Reads what the session and earlier supervisors wrote about attempts. Tolerates torn and foreign lines."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcresume.io.durable import append_line
from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import ENDS_JOB, Ending, Raised, SignalReceived
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = [
    "close_predecessor",
    "committed_step",
    "holding_job",
    "last_decision",
    "lost_node",
    "nodes_of",
    "overtaken",
    "past_attempts",
    "raised",
    "rank_warnings",
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
        for line in _lines(ledger, '"ranks-missing"'):
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
    for line in _lines(attempt.ledger, '"warning"'):
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


def requeue_accepted(attempt: AttemptPaths) -> bool:
    """Has Slurm agreed to start the job of this attempt again, at once or when a person releases it?"""
    return any(line.get("result") == "accepted" for line in _named(attempt, "requeue", "held"))


def refused_requeue(attempt: AttemptPaths) -> str:
    """What Slurm said when it was asked to start the job again and did not agree; "" when it was not, or did."""
    for line in _named(attempt, "requeue")[-1:]:
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
    told = _named(attempt, "started") or [e for e in _lines(attempt.ledger, '"claimed"') if e["event"] == "claimed"]
    nodes = told[-1].get("nodes") if told else None
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
    holder = holding_job(before)
    ending = _infer(before, restarted_job is not None and holder in (None, restarted_job))
    committed = committed_step(before)
    for event in ({"event": "cause", "evidence": list(ending.evidence)}, {"event": "ended", "exit_code": None}):
        last = _last_time(before)
        append_line(
            before.supervisor,
            {"t": last, "mono": 0.0, **event, "cause": ending.cause.value, "committed": committed, "told_by": number},
        )
    return PastAttempt(numbers[-1], ending.cause, committed)


def holding_job(attempt: AttemptPaths) -> str | None:
    """The Slurm job that claimed an attempt, "" outside Slurm, None when the claim cannot be read."""
    facts = _claim(attempt)
    return None if facts is None or "job_id" not in facts else str(facts["job_id"] or "")


def overtaken(run: RunPaths, number: int, slurm: SlurmEnvironment) -> bool:
    """Has another start, of this job or of another one, claimed an attempt after `number`, which this start has?

    What this very start claims after its session (`hr.save` does) overtakes nothing.
    """
    try:
        newer = [_claim(run.attempt(each)) for each in run.attempt_numbers() if each > number]
    except OSError:
        return False
    mine = (slurm.job_id, slurm.restart_count)
    return any(each is not None and (each.get("job_id"), each.get("restart")) != mine for each in newer)


def _claim(attempt: AttemptPaths) -> dict[str, Any] | None:
    try:
        facts = json.loads(attempt.claim.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _infer(attempt: AttemptPaths, same_job: bool) -> Ending:
    known = _named(attempt, "cause")
    cause = _as_cause(known[-1].get("cause")) if known else None
    if cause is not None:
        return Ending(cause, tuple(map(str, known[-1].get("evidence") or ())))
    hint = _decided_cause(attempt)
    if hint is not None:
        return Ending(hint, ("the session decided so, and nobody could keep a record of what followed",))
    if same_job:
        began = "" if _named(attempt, "started") else ", before its first record,"
        why = f"the supervisor vanished{began} without a signal and Slurm started the job again: its node was lost"
        return Ending(Cause.NODE_FAILURE, (why,))
    if not _named(attempt, "started"):
        return Ending(Cause.UNKNOWN, ("no supervisor kept a record of this attempt",))
    return Ending(Cause.UNKNOWN, ("the supervisor vanished without a signal; somebody started the run again",))


def _decided_cause(attempt: AttemptPaths) -> Cause | None:
    """What the session itself took for the cause when it decided that the job comes back.

    A supervisor whose file lay on a server that was away has left nothing, and its node is not to blame.
    """
    try:
        facts = json.loads(attempt.decision.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    asked = facts if isinstance(facts, dict) else {}
    return _as_cause(asked.get("cause_hint")) if asked.get("decision") == Decision.COME_BACK.value else None


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
