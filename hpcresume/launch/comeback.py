"""What a verdict means for the job: back in the queue (later, elsewhere, off suspect nodes), or held for people to see.

Requeueing kills us, so everything is recorded before it, and the job is changed right after it, which Slurm allows
only then. In the scheduler's end sequence the requeue comes first of all: the KILL is seconds away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hpcresume.config.slurm_options import slurm_time
from hpcresume.io.paths import RunPaths
from hpcresume.launch.closing import lost_nodes
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.notes import MARK, Notes, read_notes, write_notes
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.patience import PATIENCE, StartedAgainError, ThisStart, ask_patiently, put_back
from hpcresume.launch.predecessors import lead_over_to
from hpcresume.launch.siblings import forbidden_by_cluster, resubmit, stand_down, wait_elsewhere
from hpcresume.model import EXIT_COME_BACK, Cause, Decision
from hpcresume.policy.budgets import PastAttempt
from hpcresume.policy.cause import Ending, Evidence
from hpcresume.policy.fallback import JobShape, fallback_due, resources_after
from hpcresume.policy.job_facts import JobFacts
from hpcresume.policy.pauses import pause_before_restart
from hpcresume.policy.requeue import Verdict
from hpcresume.policy.suspects import NodeFacts, Suspect, add_lost, add_suspects, choose_excluded
from hpcresume.slurm.changes import (
    LONGEST_COMMENT,
    Change,
    as_options,
    change_job,
    comment_of,
    expand_nodes,
    hold_in_queue,
    partition_nodes,
    resource_changes,
)
from hpcresume.slurm.commands import Requeue, RequeueAnswer
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.submission import longest_time

__all__ = ["Carried", "Case", "carry_out"]


@dataclass(frozen=True)
class Case:
    """An attempt that has ended, and what was decided.

    Attributes:
        options: what the user asked for.
        slurm: the job.
        run: its run, None while unknown.
        number: its attempt, None when none was claimed.
        attempts: the run's attempts, this one last.
        ending: why it ended.
        evidence: what that rests on.
        verdict: what was decided.
        record: keeps an event in the attempt's journal.
        waited: Slurm's own end of the job was waited for, and did not come.
    """

    options: LaunchOptions
    slurm: SlurmEnvironment
    run: RunPaths | None
    number: int | None
    attempts: tuple[PastAttempt, ...]
    ending: Ending
    evidence: Evidence
    verdict: Verdict
    record: Callable[..., Any]
    waited: bool = False

    @property
    def facts(self) -> JobFacts | None:
        """What Slurm said of the job last."""
        return self.evidence.job[0] if self.evidence.job else None


@dataclass(frozen=True)
class Carried:
    """What came of it: `back` when Slurm will start the job again, `held` when a person has to release it first, or
    the number of the job that goes on instead. `leaving`: Slurm is about to end us. `awaits_end`: Slurm would not be
    told, and starts the job again once it has ended us itself, which is to be waited for (`last_wait`).
    """

    back: bool = False
    held: bool = False
    resubmitted: str | None = None
    awaits_end: bool = False

    @property
    def leaving(self) -> bool:
        """Is Slurm about to end us?"""
        return self.back or self.held


def carry_out(case: Case, hands: Hands, requeued: RequeueAnswer | None = None) -> Carried:
    """Do with the job what was decided. Never raises for anything that Slurm says.

    Args:
        case: the attempt.
        hands: how to reach Slurm.
        requeued: Slurm's answer, when it was asked to requeue before the ranks had ended.
    """
    if case.evidence.overtaken or case.evidence.restarted:
        say(case.verdict.reason)
        return Carried()
    try:
        return _carry_out(case, hands, requeued)
    except StartedAgainError:
        say("Slurm has started the job again meanwhile: nothing is asked of it any more")
        return Carried()


def _carry_out(case: Case, hands: Hands, requeued: RequeueAnswer | None) -> Carried:
    verdict = case.verdict
    if verdict.decision is Decision.COME_BACK:
        return _come_back_if_wanted(case, hands, requeued)
    carried = _hold(case, hands) if verdict.decision is Decision.HOLD else Carried()
    if not carried.leaving:
        stand_down(case.slurm, case.run, hands)
    return carried


def _come_back_if_wanted(case: Case, hands: Hands, requeued: RequeueAnswer | None) -> Carried:
    say(case.verdict.reason)
    if case.slurm.job_id is None:
        say(f"not under Slurm: run the same command again to go on (exit code {EXIT_COME_BACK})")
    elif case.verdict.requeue and case.options.requeue:
        return _come_back(case, hands, requeued)
    elif case.evidence.answered and case.facts is not None and case.facts.restarts <= case.evidence.restarts:
        stand_down(case.slurm, case.run, hands)  # neither we nor Slurm start it again: a person's wish
    return Carried()


def _come_back(case: Case, hands: Hands, requeued: RequeueAnswer | None) -> Carried:
    job_id = case.slurm.job_id
    assert job_id is not None, "asked by carry_out"
    hurry = case.evidence.told_to_end or requeued is not None
    changes = None if hurry else _changes(case, hands)
    answer = requeued
    if answer is None:
        start = None if hurry else ThisStart(job_id, case.evidence.restarts)
        patience = 0.0 if hurry or case.waited else PATIENCE
        answer = put_back(job_id, case.record, hands, patience=patience, start=start)
    if answer.result is Requeue.ACCEPTED:
        _change(case, hands, changes if changes is not None else _changes(case, hands))
        wait_elsewhere(case.options, case.slurm, case.run, hands, case.record)
        return Carried(back=True)
    say(f"requeue {answer.result.value}: {answer.detail}")
    if answer.result is Requeue.UNAVAILABLE and _slurm_will(case):
        return _stay()
    return _go_on_otherwise(case, hands, answer, changes)


def _stay() -> Carried:
    say("a preempted job is started again by Slurm itself, once Slurm has ended it: waiting for that")
    return Carried(awaits_end=True)


def _slurm_will(case: Case) -> bool:
    """Will Slurm start the job again by itself, as long as it has not left by then?

    Before 24.05 a job that exits in its grace is over; from then on it comes back, and is held after five times
    (MaxBatchRequeue, slurm.conf(5)). One that is still there when its grace ends comes back on all versions. That it
    is preempted is a guess where Slurm has never answered; so is then that it was warned of its time limit, and who
    leaves on that guess is lost when it is wrong.
    """
    if case.waited or case.evidence.told_to_end:
        return False
    cause, facts = case.ending.cause, case.facts
    if facts is None:
        return cause is Cause.PREEMPTED or (cause is Cause.WALLTIME and case.evidence.warning is not None)
    chosen = facts.being_preempted or not case.evidence.answered
    return cause is Cause.PREEMPTED and facts.requeueable is not False and chosen


def _go_on_otherwise(case: Case, hands: Hands, answer: RequeueAnswer, changes: list[Change] | None) -> Carried:
    """Another job instead. When that cannot be, one that stands behind this one goes on, if there is one.

    `changes` are those that the job would have come back with; None while there was no time to gather them.
    """
    requeueable = case.facts.requeueable if case.facts is not None else None
    forbidden = forbidden_by_cluster(hands) if requeueable is False else None
    if requeueable is False and forbidden is None:
        say("Slurm does not say whether the cluster forbids requeues or you do: not submitted again from here")
        return Carried()  # a guard that stands behind it goes on
    if requeueable is False and not forbidden:
        say("the job was submitted with --no-requeue, so it is not submitted again")
        stand_down(case.slurm, case.run, hands)
        return Carried()
    number = None
    if answer.result is not Requeue.UNAVAILABLE and case.run is not None:
        guard = case.options.guard is not False
        number = resubmit(case.slurm, case.run, hands, case.record, pause=_pause(case), guard=guard,
                          hurry=case.evidence.told_to_end, full_limit=case.options.time_limit,
                          exclude=None if changes is None else _to_exclude(case, changes),
                          resources=[] if changes is None else as_options(changes), facts=case.facts)  # fmt: skip
    if number is None and _slurm_will(case) and (case.facts is not None or answer.may_pass):
        return _stay()  # on a guess only where nobody has refused it
    if number is None:
        say(f"submit the job again to go on (exit code {EXIT_COME_BACK})")
        return Carried()
    if changes is None:
        _exclude_for(number, case, hands)
    else:
        _hand_over_exclusion(case, number)
    stand_down(case.slurm, case.run, hands, number)
    if changes is not None:
        wait_elsewhere(case.options, case.slurm, case.run, hands, case.record, of=number)
    lead_over_to(number, case.slurm, case.run, hands)
    return Carried(resubmitted=number)


def _to_exclude(case: Case, changes: list[Change]) -> str | None:
    """ExcNodeList as it would have been changed, for the job that goes on instead; None: as the user has it."""
    changed = [change.value for change in changes if change.key == "ExcNodeList"]
    notes = read_notes(case.run.root if case.run is not None else None)
    ours = notes.job_id == case.slurm.job_id and notes.excluded
    return changed[0] if changed else case.facts.excluded if ours and case.facts is not None else None


def _hand_over_exclusion(case: Case, number: str) -> None:
    """What this job kept off, and was not the user's wish, the new job keeps off."""
    run = case.run.root if case.run is not None else None
    notes = read_notes(run)
    if notes.job_id == case.slurm.job_id:
        write_notes(run, replace(notes, job_id=number))


# ---- changes of the job that comes back


def _changes(case: Case, hands: Hands) -> list[Change]:
    changes = []
    pause = _pause(case)
    if pause >= 1:
        changes.append(Change("StartTime", f"now+{round(pause)}", f"{round(pause)} s of pause"))
    why = fallback_due(case.options.fallback, case.attempts)
    moves = _fallback(case, why, hands) if why else []
    if not any(change.key == "TimeLimit" for change in moves):
        changes += _full_limit(case)
    return [*changes, *moves, *_exclusion(case, hands)]


def _full_limit(case: Case) -> list[Change]:
    """Slurm lowers the limit of a job with --time-min to that for a start which would not fit otherwise, before a
    maintenance say, and leaves it so for all that follow. Its owner may raise it again while the job waits.
    """
    full, limit = case.options.time_limit, case.facts.limit if case.facts is not None else None
    least = case.facts.least if case.facts is not None else None
    if not full or limit is None or least is None or limit > least:
        return []
    return [Change("TimeLimit", full, "the full limit again, after a start with --time-min")]


def _pause(case: Case) -> float:
    name = str(case.run.root) if case.run is not None else (case.slurm.job_name or "")
    return pause_before_restart(case.ending.cause, case.verdict.barren, name, case.options.pauses)


def _fallback(case: Case, why: str, hands: Hands) -> list[Change]:
    nodes, known = case.slurm.nnodes or 1, case.evidence.job
    shape = JobShape(
        partition=case.facts.partition if case.facts is not None else "",
        nodes=nodes,
        tasks=case.slurm.ntasks or nodes,
        # While a job is being ended Slurm counts only what it still has.
        cpus=max((each.cpus or 0 for each in known), default=0) or case.slurm.ntasks or nodes,
    )
    wanted, why = resources_after(case.options.fallback, shape, keep_partition=False), f"fallback, {why}"
    changes = resource_changes(wanted, why)
    limit = case.facts.limit if case.facts is not None else None
    most = longest_time(wanted.partition, execute=hands.execute) if wanted.partition is not None else None
    if most is not None and (limit is None or limit > most):  # it would wait there for ever
        changes.append(Change("TimeLimit", slurm_time(most), f"no more than {wanted.partition} gives"))
    return changes


def _exclusion(case: Case, hands: Hands) -> list[Change]:
    """ExcNodeList as it shall be, if it is not so already. Remembers the suspects."""
    run = case.run.root if case.run is not None else None
    notes, now, rules = read_notes(run), hands.clock(), case.options.exclusion
    suspects = add_suspects(add_lost(notes.suspects, _lost(case, now), rules), (), now, rules)
    ours = notes.excluded if notes.job_id == case.slurm.job_id else ()
    facts = case.facts
    if facts is None or not (suspects or ours):
        _remember(run, notes, suspects)
        return []
    now_excluded = expand_nodes(facts.excluded, execute=hands.execute, sleep=hands.sleep)
    chosen = _choose(case, hands, suspects, facts, now, set(now_excluded or ()) - set(ours))
    if now_excluded is None or chosen is None:
        _remember(run, notes, suspects)
        return []
    theirs = set(now_excluded) - set(ours)
    _remember(run, replace(notes, job_id=case.slurm.job_id, excluded=chosen,
                           comment=notes.comment if notes.job_id == case.slurm.job_id else None), suspects)  # fmt: skip
    if theirs | set(chosen) == set(now_excluded):
        return []
    words = f"{', '.join(chosen)} was lost" if chosen else "no node is suspect any more"
    return [Change("ExcNodeList", ",".join(sorted(theirs | set(chosen))), words)]


def _exclude_for(number: str, case: Case, hands: Hands) -> None:
    """Keep the job that goes on instead off suspect nodes too, which was submitted in a hurry as its user wanted it."""
    run = case.run.root if case.run is not None else None
    before = read_notes(run)
    ours = set(before.excluded) if before.job_id == case.slurm.job_id else set()
    _exclusion(case, hands)
    notes = read_notes(run)
    if case.facts is None or notes.job_id != case.slurm.job_id or not notes.excluded:
        return
    theirs = expand_nodes(case.facts.excluded, execute=hands.execute, sleep=hands.sleep)
    if theirs is None:
        return
    nodes, why = (
        ",".join(sorted({*theirs, *notes.excluded} - (ours - set(notes.excluded)))),
        f"{', '.join(notes.excluded)} was lost",
    )
    change = Change("ExcNodeList", nodes, why)
    if not change_job(number, [change], execute=hands.execute, sleep=hands.sleep):
        say(f"job {number}: {change.word} ({change.purpose})")
        write_notes(run, replace(notes, job_id=number, comment=None))


def _choose(
    case: Case, hands: Hands, suspects: tuple[Suspect, ...], facts: JobFacts, now: float, theirs: set[str]
) -> tuple[str, ...] | None:
    """None when Slurm cannot be asked: then everything stays as it is."""
    cluster: tuple[NodeFacts, ...] = ()
    if facts.partition:
        cluster = partition_nodes(facts.partition, execute=hands.execute, sleep=hands.sleep)
    job_nodes = expand_nodes(case.slurm.node_list or "", execute=hands.execute, sleep=hands.sleep)
    required = expand_nodes(facts.required, execute=hands.execute, sleep=hands.sleep)
    if not cluster or job_nodes is None or required is None:
        return None
    return choose_excluded(
        suspects, now, case.options.exclusion, cluster=cluster, job_nodes=job_nodes, needed=case.slurm.nnodes or 1,
        by_user=theirs, required=required,
    )  # fmt: skip


def _lost(case: Case, now: float) -> list[tuple[str, float]]:
    """Nodes that were lost under this attempt, or under the one before it as this one found out; and when."""
    found: list[tuple[str, float]] = []
    if case.run is not None and case.number is not None:
        found += lost_nodes(case.run, case.number)
    if case.ending.cause is Cause.NODE_FAILURE:
        down = sorted({node for job in case.evidence.job for node in (*job.down_nodes, *job.silent_nodes)})
        found += [(node, now) for node in down]
    return found


def _remember(run: Any, notes: Notes, suspects: tuple[Suspect, ...]) -> None:
    changed = replace(notes, suspects=suspects)
    if changed != read_notes(run):
        write_notes(run, changed)


def _change(case: Case, hands: Hands, changes: list[Change]) -> None:
    """Change the waiting job; say what was done, and what Slurm would not."""
    job_id = case.slurm.job_id
    if job_id is None or not changes:
        return
    refused = dict(change_job(job_id, changes, execute=hands.execute, sleep=hands.sleep))
    for change in changes:
        words = refused.get(change)
        case.record("change", key=change.key, value=change.value, why=change.purpose, refused=words or "")
        say(f"{change.word} ({change.purpose})" + (f": Slurm refuses: {words}" if words else ""))


# ---- held


def _hold(case: Case, hands: Hands) -> Carried:
    verdict, job_id = case.verdict, case.slurm.job_id
    stays = verdict.keep and case.options.stay and case.options.requeue
    if job_id is None:
        say(f"hold: {verdict.reason} (exit code {verdict.exit_code})")
        return Carried()
    comment = _comment(case, hands, f"{verdict.reason}; scontrol release {job_id} lets it go on" if stays
                       else f"held: {verdict.reason}")  # fmt: skip
    if stays:
        hurry = case.evidence.told_to_end
        answer = ask_patiently(
            lambda: hold_in_queue(job_id, comment, execute=hands.execute, sleep=hands.sleep),
            hands, 0.0 if hurry else PATIENCE, None if hurry else ThisStart(job_id, case.evidence.restarts),
        )  # fmt: skip
        case.record("held", result=answer.result.value, detail=answer.detail)
        if answer.result is Requeue.ACCEPTED:
            say(f"held in the queue: {verdict.reason}; scontrol release {job_id} lets it go on")
            _change(case, hands, _full_limit(case))
            return Carried(held=True)
        say(f"the job cannot stay in the queue: {answer.detail}")
    else:
        change_job(job_id, [Change("Comment", comment, "why")], execute=hands.execute, sleep=hands.sleep)
    say(f"hold: {verdict.reason} (exit code {verdict.exit_code})")
    return Carried()


def _comment(case: Case, hands: Hands, words: str) -> str:
    """Our words, and behind them the user's own comment, which the next start puts back."""
    run = case.run.root if case.run is not None else None
    notes = read_notes(run)
    known = notes.comment if notes.job_id == case.slurm.job_id else None
    theirs = known
    if theirs is None:
        asked = comment_of(case.slurm.job_id or "", execute=hands.execute, sleep=hands.sleep)
        theirs = "" if asked is None or asked.startswith(MARK) else asked
        excluded = notes.excluded if notes.job_id == case.slurm.job_id else ()
        write_notes(run, replace(notes, job_id=case.slurm.job_id, excluded=excluded, comment=theirs))
    text = MARK + "".join(c if c.isprintable() else "?" for c in words)
    return f"{text[:LONGEST_COMMENT]} | {theirs}" if theirs else text[:LONGEST_COMMENT]
