"""The facts of one attempt, gathered from its files. Knows the names of events; compares no attempts."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hpcresume.errors import FencedError
from hpcresume.io.paths import AttemptPaths, RunPaths, parse_generation_name
from hpcresume.model import Cause, Skipped
from hpcresume.observe.ledger_reader import MetricRecord, Record, other_ranks, read_ledger, read_supervisor
from hpcresume.observe.lines import JsonObject, read_json_object
from hpcresume.observe.metrics_end import metrics_ends
from hpcresume.policy.cause import Ending, Evidence, Raised, name_cause
from hpcresume.policy.job_facts import JobFacts

__all__ = ["AttemptFacts", "gather", "read_facts", "skipped_from", "step_of_progress"]

_STARTED = ("restored", "fresh-start")


@dataclass(frozen=True)
class AttemptFacts:
    """What the files of one attempt say. Times are unix seconds, durations seconds summed over the attempt.

    `has_begun`: it has chosen the generation that it starts from. `cause`: None while nothing names one.
    """

    attempt: int
    has_begun: bool
    start_step: int
    end_step: int
    restored_from: str | None
    generations: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    cause: Cause | None
    evidence: tuple[str, ...]
    warnings: int
    began: float | None
    ended: float | None
    save_seconds: float
    verify_seconds: float
    restore_seconds: float

    @property
    def committed_steps(self) -> tuple[int, ...]:
        """Steps of the generations that this attempt committed."""
        parsed = (parse_generation_name(name) for name in self.generations)
        return tuple(each[0] for each in parsed if each)


def read_facts(run: RunPaths, attempt: int) -> AttemptFacts:
    """Read the files of one attempt, of its metrics the ends alone; missing ones say nothing.

    Raises:
        OSError: a file is there and cannot be read.
    """
    paths = run.attempt(attempt)
    return gather(
        attempt,
        ledger=read_ledger(paths),
        other_ranks=other_ranks(paths),
        next_claim=read_json_object(run.attempt(attempt + 1).claim),
        supervisor=read_supervisor(paths),
        metrics=metrics_ends(paths.metrics),
        start=read_json_object(paths.start),
        decision=read_json_object(paths.decision),
        progress=_progress(paths),
    )


def gather(
    attempt: int,
    *,
    ledger: Sequence[Record],
    supervisor: Sequence[Record],
    metrics: Sequence[MetricRecord],
    start: JsonObject,
    decision: JsonObject,
    progress: int,
    other_ranks: Sequence[Record] = (),
    next_claim: JsonObject | None = None,
) -> AttemptFacts:
    """Pure: from what the files hold to the facts."""
    unwatched = _unwatched_end(ledger, other_ranks, next_claim or {})
    restored = _named(ledger, "restored")
    saves = _named(ledger, "saved")
    generation = _start_generation(start, restored)
    first = parse_generation_name(generation)[0] if generation else 0  # type: ignore[index]
    # A value is logged while its step is being worked: where progress is known, it says which steps were finished.
    logged = [m.step for m in metrics[-1:]] if not progress else []
    steps = [first, progress, *logged, *(int(s.number("step")) for s in saves)]
    times = [record.t for record in (*ledger, *supervisor)] + [record.t for record in metrics]
    return AttemptFacts(
        attempt=attempt,
        has_begun=bool(start) or any(record.event in _STARTED for record in ledger),
        start_step=first,
        end_step=max(steps),
        restored_from=generation,
        generations=tuple(dict.fromkeys(s.text("generation") for s in saves if s.text("generation"))),
        skipped=_skipped(start, restored),
        cause=_cause(ledger, supervisor, decision, unwatched),
        evidence=_evidence(supervisor, decision, unwatched),
        warnings=len(_named(ledger, "warning")),
        began=min(times, default=None),
        ended=max(times, default=None),
        save_seconds=_total(saves, "seconds"),
        verify_seconds=_total(saves, "verify_seconds") + _total(restored, "verify_seconds"),
        restore_seconds=_total(restored, "seconds"),
    )


def skipped_from(values: object) -> tuple[Skipped, ...]:
    """The `skipped` list of an event or of start.json; what is no such list is none."""
    if not isinstance(values, list):
        return ()
    return tuple(_one_skipped(value) for value in values if isinstance(value, dict))


def _one_skipped(value: dict[str, Any]) -> Skipped:
    offset = value.get("offset", -1)
    return Skipped(
        generation=str(value.get("generation", "")),
        reason=str(value.get("reason", "")),
        tensor=str(value.get("tensor", "")),
        offset=offset if isinstance(offset, int) else -1,
    )


def _named(records: Iterable[Record], *names: str) -> list[Record]:
    return [record for record in records if record.event in names]


def _total(records: Iterable[Record], key: str) -> float:
    return sum(record.number(key) for record in records)


def _start_generation(start: JsonObject, restored: Sequence[Record]) -> str | None:
    """start.json is the authority (it fences); the ledger says the same and may be all there is."""
    named = start.get("generation") if start else None
    if not start and restored:
        named = restored[-1].text("generation")
    return named if isinstance(named, str) and parse_generation_name(named) else None


def _skipped(start: JsonObject, restored: Sequence[Record]) -> tuple[Skipped, ...]:
    if restored:
        return skipped_from(restored[-1].fields.get("skipped"))
    return skipped_from(start.get("skipped"))


def _as_cause(value: object) -> Cause | None:
    try:
        return Cause(value)
    except ValueError:
        return None


def _unwatched_end(ledger: Sequence[Record], other_ranks: Sequence[Record], next_claim: JsonObject) -> Ending | None:
    """What ended a training that nobody watched from outside, by the first exception that any of its ranks recorded."""
    found = min(_named([*ledger, *other_ranks], "exception"), key=lambda record: record.t, default=None)
    if found is None:
        return None
    rank, step = found.fields.get("rank"), found.fields.get("step")
    raised = Raised(
        type=found.text("type") or "Exception",
        message=found.text("message"),
        rank=rank if isinstance(rank, int) else None,
        step=step if isinstance(step, int) else None,
        host=found.text("host") or None,
        at=found.t,
    )
    if raised.type != FencedError.__name__:
        return name_cause(Evidence(claimed=True, raised=raised))
    mine = next((record.fields for record in _named(ledger, "claimed")), {})
    again = mine.get("job_id") is not None and mine.get("job_id") == next_claim.get("job_id")
    job = (JobFacts("RUNNING", restarts=1),) if again else ()  # the same job has begun the next attempt
    return name_cause(Evidence(claimed=True, raised=raised, overtaken=True, job=job))


def _cause(
    ledger: Sequence[Record], supervisor: Sequence[Record], decision: JsonObject, unwatched: Ending | None
) -> Cause | None:
    """The supervisor saw the end from outside and is believed first; then the session's own last words."""
    for record in reversed(_named(supervisor, "ended", "cause")):
        cause = _as_cause(record.fields.get("cause"))
        if cause is not None:
            return cause
    if decision.get("decision") == "done" or _named(ledger, "finished"):
        return Cause.DONE
    hint = _as_cause(decision.get("cause_hint"))
    return hint or (None if unwatched is None else unwatched.cause)


def _evidence(supervisor: Sequence[Record], decision: JsonObject, unwatched: Ending | None) -> tuple[str, ...]:
    for record in reversed(_named(supervisor, "cause")):
        listed = record.fields.get("evidence")
        if isinstance(listed, list) and listed:
            return tuple(str(each) for each in listed)
    if unwatched is not None:
        return unwatched.evidence
    return (str(decision["reason"]),) if decision.get("reason") else ()


def _progress(paths: AttemptPaths) -> int:
    try:
        return step_of_progress(paths.progress.read_bytes())
    except FileNotFoundError:
        return 0


def step_of_progress(data: bytes | None) -> int:
    """The newest finished step in a file of progress (8 bytes, little endian, signed); 0 when none is known."""
    return max(0, int(struct.unpack("<q", data[:8])[0])) if data is not None and len(data) >= 8 else 0
