"""Why each attempt of a run ended, told in order: from the events of sessions and supervisors to sentences.

Owns the words. Everything said here stands in a file of the attempt; what no file tells is called unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcresume.io.paths import RunPaths
from hpcresume.model import Cause
from hpcresume.observe.figures import duration
from hpcresume.observe.history import AttemptHistory, RunHistory, read_history
from hpcresume.observe.instants import date_and_time, time_of_day
from hpcresume.observe.ledger_reader import Record, read_ledger, read_supervisor
from hpcresume.observe.lines import read_json_object, read_lines

__all__ = ["Chapter", "barren_starts", "chapter", "tell_story"]

_MEANING = {
    Cause.PREEMPTED: " (Slurm wanted its nodes for another job)",
    Cause.WALLTIME: " (its time limit came)",
    Cause.OPERATOR: " (a person stopped or restarted it)",
    Cause.STORAGE: " (the filesystem or a generation failed it)",
    Cause.UNKNOWN: " (nothing says why)",
}
"""For the causes whose names do not say it all."""
_NOTHING = (
    "no supervisor kept a record of it, no rank recorded an exception, a decision or the end, and no later start asked "
    "Slurm about it"
)
_UNFINISHED = "its supervisor recorded no end, and no later start asked Slurm about it"


@dataclass(frozen=True)
class Chapter:
    """One attempt, told.

    Attributes:
        attempt: its number.
        cause: why it ended; None while it runs.
        sentences: what happened, in order.
        evidence: what the cause rests on, one line each.
        began: unix seconds, None when nothing tells.
        ended: the last sign of it, as above.
        job_id: the Slurm job, None outside Slurm or when not known.
        start: the generation that it started from, None from nothing.
        generations: those that it committed.
        lost_steps: steps that it worked in vain.
        decided: "done", "come-back", "hold", or "".
    """

    attempt: int
    cause: Cause | None
    sentences: tuple[str, ...]
    evidence: tuple[str, ...]
    began: float | None
    ended: float | None
    job_id: str | None
    start: str | None
    generations: tuple[str, ...]
    lost_steps: int
    decided: str


def tell_story(run: RunPaths) -> list[Chapter]:
    """Every attempt of a run, the oldest first.

    Raises:
        OSError: a file is there and cannot be read.
    """
    history = read_history(run)
    return [_read_chapter(run, history, each) for each in history.attempts]


def _read_chapter(run: RunPaths, history: RunHistory, attempt: AttemptHistory) -> Chapter:
    paths = run.attempt(attempt.attempt)
    others = [line for path in sorted(paths.root.glob("ledger.*.jsonl")) for line in read_lines(path).objects]
    claim = read_json_object(paths.claim)
    return chapter(
        attempt,
        newest=attempt is history.attempts[-1],
        session=read_ledger(paths),
        supervisor=read_supervisor(paths),
        claim=claim,
        other_ranks=[f"rank {line.get('rank')}: {line.get('type')}: {line.get('message')}" for line in others
                     if line.get("event") == "exception"],
    )  # fmt: skip


def chapter(
    attempt: AttemptHistory,
    *,
    newest: bool,
    session: Sequence[Record],
    supervisor: Sequence[Record],
    claim: dict[str, object],
    other_ranks: Sequence[str] = (),
) -> Chapter:
    """Pure: from the records of an attempt to its chapter."""
    events = sorted([*session, *supervisor], key=lambda record: record.t)
    decision = _last([r for r in (*session, *supervisor) if not r.fields.get("released")], "decision")
    if claim.get("holds") is False and not session:
        said = ["It belongs to hr.save, outside of any session; hpcresume ls shows what it committed."]
    else:
        said = [_beginning(attempt, events, claim), _allocation(supervisor), *_trouble(attempt, session),
                _rhythm(session), _saves(attempt, session),
                *_stopping(attempt, session, supervisor), *other_ranks, _end(attempt, supervisor),
                _decision(attempt, supervisor, decision), _loss(attempt, newest=newest)]  # fmt: skip
    job = claim.get("job_id")
    return Chapter(
        attempt=attempt.attempt,
        cause=attempt.cause,
        sentences=tuple(sentence for sentence in said if sentence),
        evidence=_evidence(attempt, supervisor),
        began=attempt.began,
        ended=attempt.ended,
        job_id=str(job) if job else None,
        start=attempt.restored_from,
        generations=attempt.generations,
        lost_steps=attempt.lost_steps,
        decided=decision.text("decision") if decision is not None else "",
    )


def _beginning(attempt: AttemptHistory, events: Sequence[Record], claim: dict[str, object]) -> str:
    job, restart, host = claim.get("job_id"), claim.get("restart"), claim.get("host")
    when = f" at {date_and_time(attempt.began)}" if attempt.began is not None else ""
    where = f" in job {job}" if job else ""
    where += f" (start {int(restart) + 1} of it)" if job and isinstance(restart, int) and restart else ""
    where += f" on {host}" if host else ""
    world = next((int(e.number("world_size")) for e in events if e.event == "claimed" and e.number("world_size")), 0)
    ranks = f" with {world} rank{'s' if world != 1 else ''}" if world else ""
    if not attempt.has_begun:
        return f"It was claimed{when}{where}{ranks} and chose no state to start from."
    start = f"from {attempt.restored_from}" if attempt.restored_from else "from nothing"
    skipped = "".join(f"; {each.generation} was skipped: {each.reason}" for each in attempt.skipped)
    took = f", restored in {attempt.restore_seconds:.2f} s" if attempt.restore_seconds else ""
    return f"It began{when}{where}{ranks}, {start}{took}{skipped}."


def _allocation(supervisor: Sequence[Record]) -> str:
    """How long before its end it had to be told, where nothing else says that; and that it could come to nothing."""
    short, lead = _last(supervisor, "short-allocation"), _last(supervisor, "lead")
    if short is None:
        if lead is None or _last(supervisor, "warning-by-clock") is not None:
            return ""
        return f"It had to be told {duration(lead.number('seconds'))} before the end of its time: {lead.text('why')}."
    setup = f" after {duration(short.number('setup'))} of set-up" if short.number("setup") >= 1 else ""
    left, needed = duration(short.number("left")), duration(short.number("needed"))
    return f"Its allocation had {left} left{setup}, and to begin, to work a step and to save it takes {needed}."


def _rhythm(session: Sequence[Record]) -> str:
    """What "auto" chose last, and why."""
    chosen = _last(session, "cadence")
    if chosen is None or not chosen.number("save_seconds"):
        return ""
    every, save = duration(chosen.number("seconds")), duration(chosen.number("save_seconds"))
    return (
        f"It chose to save every {every} ({chosen.text('why')}): a save takes {save}, and an end that costs work is to "
        f"be expected every {duration(chosen.number('mean_time'))}."
    )


def _trouble(attempt: AttemptHistory, session: Sequence[Record]) -> list[str]:
    """What went wrong and did not end it at once."""
    failed = [r for r in session if r.event == "save-failed"]
    missing = [r for r in session if r.event == "ranks-missing"]
    said = []
    if failed:
        times = "A save" if len(failed) == 1 else f"{len(failed)} saves"
        said.append(f"{times} failed, the last at step {int(failed[-1].number('step'))}: {failed[-1].text('error')}.")
    if missing:
        first = missing[0]
        said.append(f"Ranks were missing at {time_of_day(first.t, attempt.began)}: {_facts(first)}.")
    return said


def _facts(record: Record) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.fields.items())


def _saves(attempt: AttemptHistory, session: Sequence[Record]) -> str:
    saved = [r for r in session if r.event == "saved"]
    if not saved:
        return "It saved nothing."
    last = saved[-1]
    unproved = ", not read back" if last.text("read_back") == "none" else ""
    what = "It saved" if len(saved) == 1 else f"It saved {len(saved)} times, last"
    when = f"at {time_of_day(last.t, attempt.began)} in {last.number('seconds'):.2f} s"
    return f"{what} {last.text('generation')} {when}{unproved}."


def _stopping(attempt: AttemptHistory, session: Sequence[Record], supervisor: Sequence[Record]) -> list[str]:
    """What told it to stop, and how it did."""
    said = []
    outside = [r for r in supervisor if r.event == "warning-received"]
    if outside:
        names = ", ".join(dict.fromkeys(r.text("signal") for r in outside))
        when = time_of_day(outside[0].number("at") or outside[0].t, attempt.began)
        said.append(f"The job was told by {names} at {when}{_plan(attempt, supervisor)}.")
    ours = _first(supervisor, "warning-by-clock")
    if ours is not None:
        left, when = duration(ours.number("left")), time_of_day(ours.number("at") or ours.t, attempt.began)
        said.append(
            f"Our own clock told the ranks at {when}, {left} before the end of the allocation: {ours.text('why')}."
        )
    inside = _first(session, "warning")
    if inside is not None and not outside and ours is None:
        said.append(f"The ranks were warned by {inside.signal()} at {time_of_day(inside.t, attempt.began)}.")
    stop = _last(session, "stop")
    if stop is not None:
        after = stop.t - inside.t if inside is not None else 0.0
        took = f", {after:.1f} s after they knew" if after > 0.05 else ""
        said.append(f"All ranks stopped together after step {int(stop.number('step'))}{took}: {stop.text('why')}.")
    raised = [r for r in session if r.event == "exception"]
    for record in raised[:1]:
        where = f"Rank {record.text('rank') or 0} raised {record.text('type')} at step {int(record.number('step'))}"
        said.append(f"{where}: {_line(record.text('message'))}.")
    return said


def _plan(attempt: AttemptHistory, supervisor: Sequence[Record]) -> str:
    """What Slurm said it would do: until when."""
    slurm = [r for r in supervisor if r.event == "slurm"]
    end = next((r.number("end") for r in reversed(slurm) if r.number("end")), 0.0)
    return f"; Slurm would end it at {time_of_day(end, attempt.began)}" if end else ""


def _end(attempt: AttemptHistory, supervisor: Sequence[Record]) -> str:
    if attempt.cause is None:
        return "It has not ended, as far as its files tell."
    told = _last(supervisor, "ended")
    by = told.fields.get("told_by") if told is not None else None
    moment = told.t if told is not None else attempt.ended
    when = f" at {time_of_day(moment, attempt.began)}" if moment is not None else ""
    later = f" (recorded by attempt {by}, since its own supervisor could not)" if isinstance(by, int) else ""
    code = ""
    child = _last(supervisor, "child-exit")
    if child is not None and attempt.cause is not Cause.DONE:
        number = child.fields.get("code")
        code = f"; their launcher ended with code {number}" if number else ""
        code = f"; their launcher was killed by signal {child.text('signal')}" if number is None else code
    cause = f"{attempt.cause.value}{_MEANING.get(attempt.cause, '')}"
    return f"It ended{when} at step {attempt.end_step}: {cause}{code}{later}."


def _decision(attempt: AttemptHistory, supervisor: Sequence[Record], decision: Record | None) -> str:
    if decision is None:
        return "" if attempt.cause in (None, Cause.DONE) else "Nobody was left to decide what follows."
    what = {"done": "Decided: the run is done", "come-back": "Decided: it comes back", "hold": "Decided: held"}
    words = what.get(decision.text("decision"), f"Decided: {decision.text('decision')}")
    said = _line(decision.text("reason")).removeprefix("held: ")
    said = said.removeprefix(f"{attempt.cause.value}: comes back" if attempt.cause is not None else "")
    said = said.strip()
    said = said[1:-1] if said.startswith("(") and said.endswith(")") else said
    reason = f" ({said})" if said and said not in ("the run is finished", "finished") else ""
    answer = _last(supervisor, "requeue")
    slurm = ""
    if answer is not None:
        result = answer.text("result")
        slurm = "; Slurm put the job back into the queue" if result == "accepted" else f"; the requeue was {result}"
        slurm += f": {_line(answer.text('detail'))}" if result != "accepted" and answer.text("detail") else ""
    if any(r.event == "held" and r.text("result") == "accepted" and not r.fields.get("by_hand") for r in supervisor):
        slurm = "; its job stays in the queue, held, until somebody releases it"
    other = _last(supervisor, "resubmitted")
    if other is not None and other.text("job_id"):
        slurm += f"; job {other.text('job_id')} was submitted to go on instead"
    released = next((r for r in supervisor if r.event == "decision" and r.fields.get("released")), None)
    by_hand = f" A person released it at {time_of_day(released.t, attempt.began)}." if released is not None else ""
    return f"{words}{reason}{slurm}.{by_hand}"


def _loss(attempt: AttemptHistory, *, newest: bool) -> str:
    lost, worked = attempt.lost_steps, attempt.end_step - attempt.start_step
    if not worked and attempt.cause is not Cause.DONE:
        return "It finished no step."
    steps = f"It worked steps {attempt.start_step + 1} to {attempt.end_step}" if worked else "It had no step left to do"
    if attempt.cause is None and newest:
        return f"{steps} so far."
    if not lost:
        return f"{steps}; none was lost."
    return f"{steps}; {lost} of them {'was' if lost == 1 else 'were'} lost, since no generation held them."


def _evidence(attempt: AttemptHistory, supervisor: Sequence[Record]) -> tuple[str, ...]:
    lines = [_line(each) for each in attempt.evidence]
    for record in supervisor:
        if record.event == "slurm":
            known = [f"JobState={record.text('state')}", f"Reason={record.text('reason')}"]
            known += [f"EndTime={time_of_day(record.number('end'), attempt.began)}"] if record.number("end") else []
            chosen = record.number("preempted_at")
            known += [f"PreemptTime={time_of_day(chosen, attempt.began)}"] if chosen else []
            lines.append(f"Slurm at {time_of_day(record.t, attempt.began)}: {' '.join(known)}")
    if not lines and attempt.cause is Cause.UNKNOWN:
        lines.append(_NOTHING if not supervisor else _UNFINISHED)
    return tuple(dict.fromkeys(lines))


def barren_starts(run: RunPaths) -> list[str]:
    """Starts of the run's job whose ranks ended before any of them claimed an attempt, one line each."""
    found = []
    for line in read_lines(run.root / "launch" / "barren-starts.jsonl").objects:
        record = Record(float(line["t"]) if isinstance(line.get("t"), int | float) else 0.0, "barren", line)
        job, cause = record.text("job_id"), record.text("cause")
        found.append(f"start {int(record.number('restart')) + 1} of job {job} at {date_and_time(record.t)}: {cause}")
    return found


def _first(records: Iterable[Record], event: str) -> Record | None:
    return next((record for record in records if record.event == event), None)


def _last(records: Sequence[Record], event: str) -> Record | None:
    return _first(reversed(records), event)


def _line(text: str) -> str:
    """On one line, not too long, without a full stop at its end."""
    return " ".join(text.split())[:500].rstrip(".")
