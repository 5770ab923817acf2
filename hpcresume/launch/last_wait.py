"""The wait of a preempted job, whose requeue Slurm will not take from us, for the end that Slurm itself puts to it.

A job that is still there when its grace is over is started again by Slurm on all versions; one that has left before is
not. Waiting for an end that nobody plans would only keep the nodes idle. So Slurm is asked now and then: when it says
until when it waits itself, the wait ends soon after that, and when it plans no end, or none came, the job is brought
back as it would have been in the first place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hpcresume.launch.comeback import Carried, Case, carry_out
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.patience import look
from hpcresume.policy.job_facts import JobFacts

__all__ = ["LATE", "await_slurm"]

PATIENCE = 1800.0
"""Seconds for which an end is waited for that is a guess: GraceTime is the site's choice, and nobody says it."""
LATE = 120.0
"""Seconds by which the end of a grace may come later than Slurm says: it looks at its limits every 30 s, and between
TERM and KILL lies KillWait, 30 s by default."""
LOOK_EVERY = 30.0
"""Seconds between two questions."""


def await_slurm(case: Case, hands: Hands, wait: Callable[[float], bool]) -> Carried:
    """Stay until Slurm ends the job; what came of it. With `awaits_end` the end has come, and Slurm does the rest.

    Args:
        case: the attempt, after `carry_out` has said that the end is to be waited for.
        hands: how to reach Slurm.
        wait: waits so many seconds for the end; whether it has come.
    """
    facts, until, told = case.facts, hands.clock() + PATIENCE, None
    while True:
        planned = _planned(facts)
        until = planned + LATE if planned is not None else until
        if until != told:
            told = until
            case.record("awaits-end", until=until)
        if wait(max(0.0, min(LOOK_EVERY, until - hands.clock()))):
            return Carried(awaits_end=True)
        job_id = case.slurm.job_id
        facts = look(job_id, hands) if job_id is not None else None
        if facts is not None and _plans_no_end(case, facts):
            say("Slurm answers, and preempts the job no more")
            break
        if hands.clock() >= until:
            say("Slurm has not ended the job in time")
            break
    known = (facts, *case.evidence.job) if facts is not None else case.evidence.job
    return carry_out(replace(case, evidence=replace(case.evidence, job=known), waited=True), hands)


def _planned(facts: JobFacts | None) -> float | None:
    """Until when Slurm says that the job is left to itself; None where it says nothing of it."""
    return facts.end if facts is not None and facts.being_preempted else None


def _plans_no_end(case: Case, facts: JobFacts) -> bool:
    """Does it run on, or is it over for good where Slurm may not start it again?"""
    if facts.restarts > case.evidence.restarts:
        return facts.state == "RUNNING"  # another start of it is at work, which leaves nothing to wait for
    return facts.state == "RUNNING" and (not facts.being_preempted or facts.requeueable is False)
