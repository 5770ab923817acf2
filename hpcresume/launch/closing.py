"""Closes the record of an attempt whose own supervisor could not, or that had none: the next start does it.

Slurm is asked before any rank starts, when nothing waits for the answer; what the files tell is enough otherwise.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import Any

from hpcresume.errors import SlurmError
from hpcresume.io.durable import append_line
from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.patience import asked_patiently
from hpcresume.launch.records import (
    as_cause,
    claim_of,
    committed_step,
    ends_heard,
    lines_of,
    named,
    nodes_of,
    raised,
    rank_warnings,
    received,
)
from hpcresume.model import Cause, Decision
from hpcresume.policy.aftermath import Traces, infer
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import Ending
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.accounting import past_starts
from hpcresume.slurm.commands import down_nodes, is_forgotten, show_job
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.node_starts import slurmd_starts

__all__ = ["close_before_start", "close_predecessor", "closed_by", "look_back", "lost_nodes"]

SETTLING, LOOK_EVERY = 60.0, 3.0
"""Seconds for which a job that is COMPLETING is waited for, and between two looks: its last state comes then."""
PATIENCE = 300.0
"""Seconds for which a silent controller is asked before a start; the attempt then stays as it is."""
SLACK = 2.0
"""Slurm's instants are whole seconds."""
_OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
     "TIMEOUT"}
)  # fmt: skip


def close_before_start(run: RunPaths, slurm: SlurmEnvironment, hands: Hands, *, supervised: bool = True) -> None:
    """Before a start claims its attempt: say how the one before ended, with what Slurm knows of it. Never raises.

    Nothing is said of an attempt whose job may still be at work, for want of an answer too, or that belongs to no job.

    Args:
        run: the run.
        slurm: the job that starts.
        hands: how to reach Slurm.
        supervised: the attempts of this run have a supervisor beside them.
    """
    with contextlib.suppress(OSError):  # a run that cannot be read now is another matter, and said elsewhere
        number = max(run.attempt_numbers(), default=0)
        if number and not run.done.exists() and not named(run.attempt(number), "ended"):
            known = _from_slurm(run.attempt(number), slurm, hands, patience=PATIENCE)
            if known is not None:
                traces = replace(_from_files(run.attempt(number)), **vars(known))
                _close(run, number, number + 1, replace(traces, supervised=supervised or traces.began))


def close_predecessor(
    run: RunPaths, number: int, *, restarted_job: str | None, supervised: bool = True
) -> PastAttempt | None:
    """Record how the attempt before `number` ended if its own supervisor could not; None when it had. Asks nobody.

    Args:
        run: the run.
        number: the attempt that has just begun.
        restarted_job: the Slurm job's id if Slurm started this job before, else None.
        supervised: the attempts of this run have a supervisor beside them.
    """
    numbers = [n for n in run.attempt_numbers() if n < number]
    if not numbers or named(run.attempt(numbers[-1]), "ended"):
        return None
    claim = claim_of(run.attempt(numbers[-1])) or {}
    if claim.get("holds") is False:
        return None  # hr.save's: it ends with the program that made it, and says nothing of the job
    same = restarted_job is not None and claim.get("job_id", restarted_job) == restarted_job
    traces = replace(_from_files(run.attempt(numbers[-1])), restarted=same)
    return _close(run, numbers[-1], number, replace(traces, supervised=supervised or traces.began))


def look_back(run: RunPaths, hands: Hands) -> Ending | None:
    """How the newest attempt ended, of which no record tells, as far as Slurm and its files do; nothing is written.

    None while its job may be at work, and where nobody knows which job that was.

    Raises:
        OSError: the run cannot be read.
    """
    number = max(run.attempt_numbers(), default=0)
    known = _from_slurm(run.attempt(number), SlurmEnvironment(), hands) if number else None
    if known is None:
        return None
    traces = replace(_from_files(run.attempt(number)), **vars(known))
    return infer(replace(traces, supervised=traces.began))


def closed_by(run: RunPaths, number: int) -> PastAttempt | None:
    """The attempt before `number` as `close_before_start` closed it for that one; None when it did not."""
    before, ended = _told_by(run, number)
    cause = as_cause(ended.get("cause"))
    return None if before is None or cause is None else PastAttempt(before, cause, ended.get("committed"))


def lost_nodes(run: RunPaths, number: int) -> list[tuple[str, float]]:
    """The nodes that were lost under the attempt before `number` as this one found out, each with when that was."""
    before, ended = _told_by(run, number)
    at = ended.get("t")
    if before is None or as_cause(ended.get("cause")) is not Cause.NODE_FAILURE or not isinstance(at, int | float):
        return []
    nodes = ended.get("lost")
    if not isinstance(nodes, list):  # a record of an earlier version: the supervisor's node, which took it along
        nodes = [line.get("node") for line in named(run.attempt(before), "started")[-1:]]
    return [(node, float(at)) for node in nodes if isinstance(node, str)]


def _told_by(run: RunPaths, number: int) -> tuple[int | None, dict[str, Any]]:
    """The attempt before `number`, and its end as that one told it."""
    numbers = [n for n in run.attempt_numbers() if n < number]
    ended = named(run.attempt(numbers[-1]), "ended")[-1:] if numbers else []
    return (numbers[-1], ended[0]) if ended and ended[0].get("told_by") == number else (None, {})


def _close(run: RunPaths, before: int, number: int, traces: Traces) -> PastAttempt:
    attempt = run.attempt(before)
    ending, lost = _early(attempt), list(traces.lost)
    if ending is None:
        ending = infer(traces)
        started = named(attempt, "started")
        node = started[-1].get("node") if started else None
        if not lost and traces.silent and isinstance(node, str):
            lost = [node]  # the supervisor's, which took it along
    committed, last = committed_step(attempt), _last_time(attempt)
    for event in (
        {"event": "cause", "evidence": list(ending.evidence)},
        {"event": "ended", "exit_code": None, "lost": lost},
    ):
        append_line(
            attempt.supervisor,
            {"t": last, "mono": 0.0, **event, "cause": ending.cause.value, "committed": committed, "told_by": number},
        )
    return PastAttempt(before, ending.cause, committed)


def _early(attempt: AttemptPaths) -> Ending | None:
    """What its own supervisor named as the cause before it was killed."""
    known = named(attempt, "cause")
    cause = as_cause(known[-1].get("cause")) if known else None
    return None if cause is None else Ending(cause, tuple(map(str, known[-1].get("evidence") or ())))


def _from_files(attempt: AttemptPaths) -> Traces:
    return Traces(
        decided=_decided_cause(attempt),
        began=bool(named(attempt, "started")),
        heard=(*rank_warnings(attempt), *ends_heard(attempt), *received(attempt)),
        raised=raised(attempt),
    )


@dataclass(frozen=True)
class _Known:
    """What Slurm tells, as fields of `Traces`."""

    restarted: bool
    state: str
    said: str
    down: tuple[str, ...]
    anew: tuple[str, ...]
    looked: tuple[str, ...]


def _from_slurm(
    attempt: AttemptPaths, slurm: SlurmEnvironment, hands: Hands, *, patience: float | None = None
) -> _Known | None:
    """None while the attempt's job may be at work, and where nobody knows which job that was.

    `patience`: seconds for which Slurm is asked whether the job is over, without whose answer nothing is concluded.
    None: only a reader wants to know, for whom the files have to do.
    """
    claim = claim_of(attempt)
    job_id, restart = (claim or {}).get("job_id"), (claim or {}).get("restart")
    if claim is None or claim.get("holds") is False or not isinstance(job_id, str) or not isinstance(restart, int):
        return None
    if job_id == slurm.job_id:
        restarted, state, said, looked = slurm.restart_count > restart, "", "", []
        if not restarted:
            return None  # this very start
    else:
        try:
            facts = _settled(job_id, restart, hands, patience or 0.0)
        except SlurmError as error:
            if patience is not None:
                say(f"how job {job_id} ended stays open, for it may be at work: {error}")
                return None
            facts = None
        if facts is not None and facts.restarts <= restart and facts.state not in _OVER:
            return None
        restarted = facts is not None and facts.restarts > restart
        state = "" if facts is None or restarted else facts.state
        said = f"job {job_id} ended as {state} ({_details(facts)})" if facts is not None and state else ""
        unknown = f"Slurm has forgotten job {job_id}" + (", or does not answer" if patience is None else "")
        looked = [unknown] if facts is None else []
        looked += [f"Slurm: {said}"] if said else []
    last = _last_heard(attempt)
    if not said:
        word = _of_accounting(job_id, last, hands)
        state, said = (word, f"job {job_id} ended as {word} (sacct)") if word else ("", "")
        looked.append(f"Slurm: {said}" if said else "there is no accounting that remembers that start of the job")
    nodes = nodes_of(attempt)
    down = down_nodes(nodes, execute=hands.execute, sleep=hands.sleep) if nodes else ()
    anew, most = _began_anew(nodes, last, hands) if nodes and restarted else ((), False)
    if most:
        looked.append(f"slurmd has begun anew on most of its nodes ({', '.join(anew)}), so somebody restarted them")
        anew = ()
    elif nodes and not (down or anew):
        looked.append(f"none of its nodes ({nodes}) is down" + (" or was" if restarted else ""))
    return _Known(restarted, state, said, down, anew, tuple(looked))


def _settled(job_id: str, restart: int, hands: Hands, patience: float) -> JobFacts | None:
    """Slurm's words on another job once it is over; None when Slurm knows no such job any more. A guard starts a moment
    too early.

    Raises:
        SlurmError: Slurm does not tell, so that the job may be at work.
    """
    until = hands.clock() + SETTLING
    while True:
        try:
            facts = asked_patiently(lambda: show_job(job_id, execute=hands.execute, sleep=hands.sleep), hands, patience)
        except SlurmError as error:
            if is_forgotten(str(error)):
                return None
            raise
        if facts.state != "COMPLETING" or facts.restarts > restart or hands.clock() >= until:
            return facts
        hands.sleep(LOOK_EVERY)


def _details(facts: JobFacts | None) -> str:
    if facts is None:
        return ""
    code = f", killed by signal {facts.killed_by}" if facts.killed_by else f", exit code {facts.exit_code}"
    return f"Reason={facts.reason}{'' if facts.exit_code is None and not facts.killed_by else code}"


def _of_accounting(job_id: str, last: float, hands: Hands) -> str:
    """The state of the job's start that was at work when the attempt was last heard of; "" when not known."""
    starts = past_starts(job_id, execute=hands.execute, sleep=hands.sleep)
    over = [each for each in starts if each.start is not None and each.start <= last + SLACK]
    return over[-1].state if over and over[-1].state not in ("RUNNING", "PENDING", "COMPLETED", "FAILED") else ""


def _began_anew(nodes: str, last: float, hands: Hands) -> tuple[tuple[str, ...], bool]:
    """The nodes whose slurmd is younger than what was heard last, and whether they are more than half of several: then
    rather all slurmds were restarted while the job waited, for an upgrade say, than that so many nodes were lost.
    """
    starts = slurmd_starts(nodes, execute=hands.execute, sleep=hands.sleep)
    anew = tuple(sorted(node for node, start in starts.items() if start > last))
    return anew, len(starts) > 1 and 2 * len(anew) > len(starts)


def _decided_cause(attempt: AttemptPaths) -> Cause | None:
    """What the session itself took for the cause when it decided that the job comes back.

    A supervisor whose file lay on a server that was away has left nothing, and its node is not to blame.
    """
    try:
        facts = json.loads(attempt.decision.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    asked = facts if isinstance(facts, dict) else {}
    return as_cause(asked.get("cause_hint")) if asked.get("decision") == Decision.COME_BACK.value else None


def _last_time(attempt: AttemptPaths) -> float:
    """When the attempt was last heard of by its record: its end is told with that time, not with ours."""
    times = [line.get("t") for path in (attempt.supervisor, attempt.ledger) for line in lines_of(path)]
    return max((float(t) for t in times if isinstance(t, int | float)), default=0.0)


def _last_heard(attempt: AttemptPaths) -> float:
    """When any of its files was last written to, which is later than the newest line of its record."""
    times = [_last_time(attempt)]
    for path in attempt.root.iterdir():
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)
