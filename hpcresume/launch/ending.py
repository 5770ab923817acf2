"""The end of an attempt: gather the evidence, name the cause, decide, record, and only then requeue."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hpcresume.errors import RunDirectoryError
from hpcresume.io.paths import RunPaths
from hpcresume.launch.barren import barren_starts, note_barren_start, with_barren_starts
from hpcresume.launch.comeback import Case, carry_out
from hpcresume.launch.hands import Hands
from hpcresume.launch.inbox import ENDING, await_ending
from hpcresume.launch.journal import say
from hpcresume.launch.last_wait import await_slurm
from hpcresume.launch.memory import memory_kills, new_memory_kills, told_of_memory
from hpcresume.launch.options import LaunchOptions, Outcome
from hpcresume.launch.other_hands import step_aside, was_refused
from hpcresume.launch.patience import put_back
from hpcresume.launch.predecessors import mark_program_done
from hpcresume.launch.records import committed_step, overtaken, past_attempts, raised, rank_warnings, stuck_in_files
from hpcresume.launch.rendezvous import Claimed
from hpcresume.launch.supervisor import Supervisor
from hpcresume.model import EXIT_HOLD, Cause, Decision
from hpcresume.policy.budgets import PastAttempt, follows_a_hold
from hpcresume.policy.cause import Evidence, name_cause
from hpcresume.policy.requeue import decide, memory_ended, uncounted
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.silent_nodes import silent_nodes

__all__ = ["conclude", "finish", "last_seconds"]

ASK_SECONDS = 8.0
"""How long the end of an attempt waits for Slurm's view of it."""
LEAVE_SECONDS = 1.0
"""From TERM until ranks that have decided but not left are killed."""
RESCUE_SECONDS = 3.0
"""From TERM until a job at its time limit is requeued in spite of ranks that still save; KILL comes after
max(KillWait, 5) seconds (seen: 4.6)."""


def finish(supervisor: Supervisor) -> Outcome:
    """Decide what becomes of the job and do it."""
    _gather(supervisor)
    aside = _step_aside(supervisor)
    if aside is not None:
        return aside
    case = conclude(
        supervisor.options, supervisor.slurm, supervisor.claimed, supervisor.evidence, supervisor.journal.record
    )
    ending, verdict = case.ending, case.verdict
    if case.number is None and not mark_program_done(supervisor.options, supervisor.slurm, ending.cause):
        verdict = replace(verdict, exit_code=RunDirectoryError.exit_code)
    carried = carry_out(case, Hands(), supervisor.requeued)
    if carried.awaits_end:
        carried = await_slurm(case, Hands(), await_ending)
    if carried.leaving:
        _await_end(supervisor)
    return Outcome(
        exit_code=verdict.exit_code,
        decision=verdict.decision.value,
        cause=ending.cause.value,
        reason=verdict.reason,
        evidence=ending.evidence,
        run=str(case.run.root) if case.run is not None and case.number is not None else None,
        attempt=case.number,
        committed=case.attempts[-1].committed,
        requeued=carried.back,
        held=carried.held,
        resubmitted=carried.resubmitted,
    )


def _step_aside(supervisor: Supervisor) -> Outcome | None:
    """Another job has the run: nothing is recorded, and what follows does not rest on causes."""
    if supervisor.options.run is None or not was_refused(supervisor.evidence):
        return None
    aside = step_aside(supervisor.options, supervisor.slurm, RunPaths(supervisor.options.run), Hands(), refused=True)
    if aside is not None and aside.requeued:
        _await_end(supervisor)
    return aside


def conclude(
    options: LaunchOptions,
    slurm: SlurmEnvironment,
    claimed: Claimed | None,
    evidence: Evidence,
    record: Callable[..., Any],
) -> Case:
    """Name the cause, decide, and record both durably. Asks nobody: everything that is known is in the arguments and
    in the files of the run.

    Args:
        options: what the user asked for.
        slurm: the job.
        claimed: the attempt, None when none was claimed.
        evidence: all that is known of the end.
        record: keeps an event in the journal.
    """
    evidence = replace(evidence, overtaken=claimed is not None and overtaken(claimed.run, claimed.number, slurm))
    ending = name_cause(evidence)
    past, committed = _history(options, slurm, claimed)
    verdict = decide(ending, evidence, past, committed, options.budgets)
    if claimed is None and options.stage and verdict.exit_code != EXIT_HOLD:
        verdict = replace(verdict, keep=False)  # a program that fails, which those that wait for it shall see
    this = PastAttempt(
        attempt=claimed.number if claimed is not None else 0,
        cause=ending.cause,
        committed=committed,
        decided=verdict.decision.value,
        memory=memory_ended(ending, evidence),
        released=follows_a_hold(past),
        kept=verdict.keep and options.stay,
    )
    if claimed is None and (verdict.requeue or verdict.keep) and not note_barren_start(options.run, slurm, this):
        verdict = uncounted(verdict, slurm.restart_count)
    record("cause", cause=ending.cause.value, evidence=list(ending.evidence))
    record("decision", decision=verdict.decision.value, reason=verdict.reason, requeue=verdict.requeue)
    extra = {"memory": True} if this.memory else {}
    record("ended", cause=ending.cause.value, exit_code=verdict.exit_code, committed=committed, **extra)
    say(f"{ending.cause.value}: {ending.evidence[0]}")
    if verdict.decision is Decision.DONE:
        say(f"done: {verdict.reason} (exit code {verdict.exit_code})")
    run = claimed.run if claimed is not None else _given_run(options)
    return Case(options, slurm, run, claimed.number if claimed is not None else None, (*past, this), ending, evidence,
                verdict, record)  # fmt: skip


def _given_run(options: LaunchOptions) -> RunPaths | None:
    return RunPaths(options.run) if options.run is not None else None


def _gather(supervisor: Supervisor) -> None:
    """Complete the evidence. A finished run needs nobody's opinion; for any other end Slurm is asked once more."""
    child = supervisor.evidence.child
    assert child is not None
    supervisor.journal.record("child-exit", code=child.code, signal=child.signal)
    if not child.clean:
        swept = supervisor.ranks.sweep()
        if swept:
            supervisor.journal.record("swept", processes=swept)
    claimed = supervisor.claimed
    evidence = replace(
        supervisor.evidence,
        decision=supervisor.rendezvous.decision(),
        raised=raised(claimed.paths) if claimed is not None else None,
        stuck=stuck_in_files(claimed.paths) if claimed is not None else "",
        rank_warnings=rank_warnings(claimed.paths) if claimed is not None else (),
        out_of_memory=new_memory_kills(supervisor.memory_before, memory_kills()),
    )
    if evidence.decision is None and not child.clean and not evidence.out_of_memory:
        evidence = replace(evidence, out_of_memory=told_of_memory(supervisor.slurm, supervisor.log))
    if evidence.decision is None or evidence.decision.decision is not Decision.DONE:
        supervisor.desk.ask_and_wait(ASK_SECONDS)
        supervisor.hear_the_end()
        evidence = replace(evidence, signals=supervisor.evidence.signals)
    supervisor.evidence = _with_silent_nodes(replace(evidence, job=supervisor.desk.known), supervisor.slurm)
    supervisor.write_deadline()  # ranks that were warned themselves may have been quicker than Slurm's answer


def _with_silent_nodes(evidence: Evidence, slurm: SlurmEnvironment) -> Evidence:
    """Ranks that died without deciding anything may have lost a node that Slurm still believes in."""
    known, child = evidence.job, evidence.child
    if not known or known[0].down_nodes or evidence.decision is not None or child is None:
        return evidence
    if child.clean and not evidence.claimed:
        return evidence
    reached = any(each.reached for each in known)
    silent = silent_nodes(slurm.node_list or "", slurm.node_name, reached=reached)
    return replace(evidence, job=(replace(known[0], silent_nodes=silent), *known)) if silent else evidence


def _history(
    options: LaunchOptions, slurm: SlurmEnvironment, claimed: Claimed | None
) -> tuple[tuple[PastAttempt, ...], int | None]:
    try:
        if claimed is not None:
            past = past_attempts(claimed.run, claimed.number)
            return with_barren_starts(past, claimed.run.root, slurm), committed_step(claimed.paths)
        if options.run is None:
            return barren_starts(None, slurm), None
        return with_barren_starts(past_attempts(RunPaths(options.run)), options.run, slurm), None
    except OSError as error:
        say(f"the history of the run cannot be read: {error}")
        return barren_starts(options.run, slurm), None


def last_seconds(supervisor: Supervisor) -> None:
    """While the ranks still run in the scheduler's end sequence: what must not wait for the KILL.

    After a commit, ranks that do not leave are killed, so that the requeue can be asked for. Without one, a job
    at its time limit is requeued before the KILL ends us too: Slurm would not do it (seen: `scontrol requeue`
    of a job in state COMPLETING is accepted), and whatever was committed before is there to go on from.
    """
    since = supervisor.ending_since
    if since is None or supervisor.requeued is not None:
        return
    decision = supervisor.rendezvous.decision()
    if decision is not None and decision.decision is Decision.COME_BACK:
        if time.time() - since > LEAVE_SECONDS:
            supervisor.journal.record("lingering")
            supervisor.ranks.kill()
    elif time.time() - since > RESCUE_SECONDS and supervisor.options.requeue:
        _rescue(supervisor)


def _rescue(supervisor: Supervisor) -> None:
    job_id, ending = supervisor.slurm.job_id, name_cause(supervisor.evidence)
    if ending.cause is not Cause.WALLTIME or job_id is None:
        return
    past, committed = _history(supervisor.options, supervisor.slurm, supervisor.claimed)
    if decide(ending, supervisor.evidence, past, committed, supervisor.options.budgets).requeue:
        supervisor.requeued = put_back(job_id, supervisor.journal.record, Hands())


def _await_end(supervisor: Supervisor) -> None:
    """Slurm now ends the batch step. Leaving before would only race with it, unless its TERM has come already."""
    if not any(received.signal in ENDING for received in supervisor.evidence.signals):
        await_ending()
