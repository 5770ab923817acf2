"""A stage and the stages before it: is each of them done, and if not, what does this job wait for meanwhile?

Slurm starts a stage when the jobs before it have ended well (`--dependency=afterok`). Here it is looked at once more,
by the runs themselves: a job that was submitted by hand, or whose dependency a person has removed, must not train on
what is half made. Whoever waits gives its nodes back.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpcresume.checkpoint.attempts import read_holder
from hpcresume.checkpoint.run import mark_done
from hpcresume.errors import SlurmError
from hpcresume.io.durable import make_directory
from hpcresume.io.paths import RunPaths
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.notes import MARK, read_notes, write_notes
from hpcresume.launch.options import LaunchOptions, Outcome
from hpcresume.launch.patience import PATIENCE, StartedAgainError, ThisStart, ask_patiently, asked_patiently
from hpcresume.launch.records import past_attempts
from hpcresume.launch.siblings import RESUBMITTED
from hpcresume.model import EXIT_COME_BACK, EXIT_HOLD, Cause, Decision
from hpcresume.slurm.changes import LONGEST_COMMENT, Change, change_job, comment_of, hold_in_queue
from hpcresume.slurm.commands import Requeue, requeue
from hpcresume.slurm.dependents import after_all, lead_over
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.queue import ask_queue
from hpcresume.slurm.sibling_list import read_siblings

__all__ = ["lead_over_from", "lead_over_to", "made_from", "mark_program_done", "wait_for_stages"]

VISIBLE, LOOK_EVERY = 30.0, 2.0
"""Seconds until another node's DONE is seen here, at most (directory entries on NFS), and between two looks."""


def wait_for_stages(options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands) -> Outcome | None:
    """None when every stage before this one is done; else what this start ends with: the job waits in the queue."""
    missing = _not_done(options.after, hands)
    if not missing:
        return None
    names = ", ".join(run.root.name for run in missing)
    if slurm.job_id is None:
        why = f"{options.stage or 'this'} waits for {names}, which is not done"
        say(f"{why}; start it again then")
        return Outcome(EXIT_HOLD, Decision.HOLD.value, reason=why, run=_root(options))
    try:
        return _stay_in_queue(options, slurm, hands, missing, names)
    except StartedAgainError:
        why = f"Slurm has started the job again meanwhile, which waits for {names} itself"
        say(why)
        return Outcome(EXIT_COME_BACK, Decision.COME_BACK.value, reason=why, run=_root(options))


def _stay_in_queue(
    options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands, missing: Sequence[RunPaths], names: str
) -> Outcome:
    """Raises `StartedAgainError`: another start of the job is at work."""
    try:
        jobs = _at_work(missing, slurm, hands)
    except SlurmError as error:
        return _hold(options, slurm, hands, f"{names} is not done, and who works on it cannot be asked: {error}")
    if jobs:
        return _wait_behind(options, slurm, hands, jobs, names)
    said = "; ".join(f"{run.root.name} is not done ({_how_it_ended(run)})" for run in missing)
    return _hold(options, slurm, hands, said)


def _not_done(after: Sequence[Path], hands: Hands) -> list[RunPaths]:
    until = hands.clock() + VISIBLE
    while True:
        missing = [run for run in map(RunPaths, after) if not run.done.exists()]
        # A run that is at work elsewhere shows its files here: what is waited for is a DONE that was just written.
        if not missing or hands.clock() >= until or not any(run.root.is_dir() for run in missing):
            return missing
        hands.sleep(LOOK_EVERY)


def _at_work(runs: Sequence[RunPaths], slurm: SlurmEnvironment, hands: Hands) -> list[str]:
    """Jobs of these runs that run or wait in the queue; empty when one of them has none.

    Raises:
        SlurmError: nobody can be asked.
    """
    ids = [[each for each in _jobs_of(run) if each != slurm.job_id] for run in runs]
    named = [each for some in ids for each in some]
    queue = asked_patiently(lambda: ask_queue(named, execute=hands.execute, sleep=hands.sleep), hands)
    alive = [sorted((each for each in some if each in queue and not queue[each].over),
                    key=lambda each: not queue[each].active) for some in ids]  # fmt: skip
    return [some[0] for some in alive] if all(alive) else []


def _jobs_of(run: RunPaths) -> list[str]:
    """Those that may work on a run, the likeliest first; last those that only stand behind another."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(str(json.loads(run.submission.read_bytes()).get("job_id")))
    with contextlib.suppress(OSError):
        numbers = run.attempt_numbers()
        holder = read_holder(run, numbers[-1]) if numbers else None
        found += [holder.job_id] if holder is not None and holder.job_id is not None else []
    siblings = sorted(read_siblings(run.root).waiting, key=lambda each: each.why != RESUBMITTED)
    return list(dict.fromkeys([*found, *(each.job_id for each in siblings)]))


def _wait_behind(
    options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands, jobs: Sequence[str], names: str
) -> Outcome:
    """Back into the queue, behind the jobs that work on the stages before this one."""
    job_id = slurm.job_id or ""
    why = f"waits for {names} (job {', '.join(jobs)})"
    answer = ask_patiently(
        lambda: requeue(job_id, execute=hands.execute, sleep=hands.sleep), hands, PATIENCE, ThisStart.here(slurm)
    )
    if answer.result is not Requeue.ACCEPTED:
        return _hold(options, slurm, hands, why)
    change = Change("Dependency", after_all(jobs), why)
    refused = change_job(job_id, [change], execute=hands.execute, sleep=hands.sleep)
    say(why + (f"; Slurm refuses the dependency: {refused[0][1]}" if refused else ""))
    return Outcome(EXIT_COME_BACK, Decision.COME_BACK.value, reason=why, run=_root(options), requeued=True)


def _hold(options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands, why: str) -> Outcome:
    """Nobody works on what is missing: held in the queue, for somebody to see and to start it."""
    job_id = slurm.job_id or ""
    if options.run is not None:  # the user's own comment, which the next start puts back
        notes = read_notes(options.run)
        theirs = notes.comment if notes.job_id == job_id else None
        if theirs is None:
            asked = comment_of(job_id, execute=hands.execute, sleep=hands.sleep)
            theirs = "" if asked is None or asked.startswith(MARK) else asked
            with contextlib.suppress(OSError):
                make_directory(options.run)
            excluded = notes.excluded if notes.job_id == job_id else ()
            write_notes(options.run, replace(notes, job_id=job_id, excluded=excluded, comment=theirs))
    comment = "".join(c if c.isprintable() else "?" for c in f"{MARK}held: {why}; hpcresume requeue goes on there")
    answer = ask_patiently(
        lambda: hold_in_queue(job_id, comment[:LONGEST_COMMENT], execute=hands.execute, sleep=hands.sleep),
        hands, PATIENCE, ThisStart.here(slurm),
    )  # fmt: skip
    held = answer.result is Requeue.ACCEPTED
    say(f"held{' in the queue' if held else ''}: {why}" + ("" if held else f" ({answer.detail})"))
    return Outcome(EXIT_HOLD, Decision.HOLD.value, reason=why, run=_root(options), held=held)


def _how_it_ended(run: RunPaths) -> str:
    with contextlib.suppress(OSError):
        past = past_attempts(run)
        if past:
            return f"attempt {past[-1].attempt}: {past[-1].cause.value}"
    return "no attempt of it is known"


def _root(options: LaunchOptions) -> str | None:
    return str(options.run) if options.run is not None else None


def lead_over_from(old: str, slurm: SlurmEnvironment, run: RunPaths | None, hands: Hands) -> None:
    """Jobs that wait for `old` wait for this job from now on; so do those that saw it fail before it came back.

    The run's own other jobs are left alone: what they wait for is this run's affair.
    """
    if slurm.job_id is not None:
        _say_led(old, slurm.job_id, run, hands)


def lead_over_to(new: str, slurm: SlurmEnvironment, run: RunPaths | None, hands: Hands) -> None:
    """Jobs that wait for this job wait for `new`, which goes on instead."""
    if slurm.job_id is not None:
        _say_led(slurm.job_id, new, run, hands)


def _say_led(old: str, new: str, run: RunPaths | None, hands: Hands) -> None:
    ours = {each.job_id for each in read_siblings(run.root).waiting} if run is not None else set()
    for job_id, refused in lead_over(old, new, but=ours, execute=hands.execute, sleep=hands.sleep):
        say(f"job {job_id} waits for job {new} now" + (f": Slurm refuses: {refused}" if refused else ""))


def made_from(after: Sequence[Path]) -> list[dict[str, Any]]:
    """What the stages before have ended as: run, attempt, step and newest generation of each, as its DONE says."""
    found = []
    for path in after:
        facts: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            read = json.loads(RunPaths(path).done.read_bytes())
            facts = read if isinstance(read, dict) else {}
        known = {key: facts.get(key) for key in ("attempt", "step", "generation", "job_id", "finished_at")}
        found.append({"stage": path.name, "run": str(path), **{k: v for k, v in known.items() if v is not None}})
    return found


def mark_program_done(options: LaunchOptions, slurm: SlurmEnvironment, cause: Cause) -> bool:
    """A stage may be a program that opens no session: when its ranks end well, the supervisor finishes its run.

    A run that sessions have worked on is theirs to finish. False when it cannot be written.
    """
    if not options.stage or options.run is None or cause is not Cause.DONE:
        return True
    run = RunPaths(options.run)
    if run.run_json.exists():
        return True
    facts = {"program": True, "job_id": slurm.job_id, "finished_at": time.time(), "made_from": made_from(options.after)}
    try:
        make_directory(run.root)
        mark_done(run, facts)
    except OSError as error:
        say(f"the stage has ended well, and DONE cannot be written: {error}")
        return False
    return True
