"""Asking a controller that does not answer again and again, as long as the job is still this start's to ask about.

Nobody else would ask for us: while a controller restarts or fails over, waiting costs some idle minutes, and leaving
costs the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hpcresume.errors import SlurmError
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.policy.cause import Evidence
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.commands import Requeue, RequeueAnswer, may_pass, requeue, show_job
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["PATIENCE", "StartedAgainError", "ThisStart", "ask_patiently", "asked_patiently", "look", "put_back"]

T = TypeVar("T")

PATIENCE = 1800.0
FIRST_WAIT, LONGEST_WAIT = 5.0, 60.0
"""Seconds for which a silent controller is asked, and between two tries, doubled each time."""


@dataclass(frozen=True)
class ThisStart:
    """Which job, and how often it had been started before this start of it."""

    job_id: str
    restarts: int

    @classmethod
    def here(cls, slurm: SlurmEnvironment) -> ThisStart | None:
        """None outside Slurm."""
        return None if slurm.job_id is None else cls(slurm.job_id, slurm.restart_count)


class StartedAgainError(Exception):
    """Another start of the job is at work: whatever Slurm were told of the job now, it would do to that one."""


def look(job_id: str, hands: Hands) -> JobFacts | None:
    """What Slurm says of the job now; None when it cannot be asked."""
    try:
        return show_job(job_id, name=hands.environ.get("SLURM_JOB_NAME"), execute=hands.execute, sleep=hands.sleep)
    except SlurmError:
        return None


def ask_patiently(
    ask: Callable[[], RequeueAnswer], hands: Hands, patience: float, start: ThisStart | None
) -> RequeueAnswer:
    """Ask until the controller answers.

    Args:
        ask: what is asked of it, which would end the start that runs at that moment.
        hands: how to reach Slurm.
        patience: seconds for which a controller that does not answer is asked again.
        start: who asks: before each time it is made sure that no later start of the job is at work. None: nobody
            looks, for there is no time.

    Raises:
        StartedAgainError: Slurm or a person has had the job started again meanwhile.
    """
    pause, until = FIRST_WAIT, hands.clock() + patience
    while True:
        if start is not None and _is_over(start, hands):
            raise StartedAgainError
        answer = ask()
        if not answer.may_pass or hands.clock() + pause > until:
            return answer
        say(f"{answer.result.value}: {answer.detail}; asking again in {pause:g} s")
        hands.sleep(pause)
        pause = min(2 * pause, LONGEST_WAIT)


def asked_patiently(ask: Callable[[], T], hands: Hands, patience: float = PATIENCE) -> T:
    """The answer to a question that changes nothing, asked until the controller answers.

    Raises:
        SlurmError: it does not within so many seconds, or answers what will not be otherwise later.
    """
    pause, until = FIRST_WAIT, hands.clock() + patience
    while True:
        try:
            return ask()
        except SlurmError as error:
            if not may_pass(str(error)) or hands.clock() + pause > until:
                raise
            say(f"{error}; asking again in {pause:g} s")
        hands.sleep(pause)
        pause = min(2 * pause, LONGEST_WAIT)


def put_back(
    job_id: str,
    record: Callable[..., Any],
    hands: Hands,
    *,
    patience: float = 0.0,
    start: ThisStart | None = None,
) -> RequeueAnswer:
    """Ask Slurm to start the job again, and record what it said.

    Args:
        job_id: the job.
        record: keeps an event in the journal.
        hands: how to reach Slurm.
        patience: see `ask_patiently`.
        start: see `ask_patiently`.

    Raises:
        StartedAgainError: see `ask_patiently`.
    """
    answer = ask_patiently(lambda: requeue(job_id, execute=hands.execute, sleep=hands.sleep), hands, patience, start)
    record("requeue", result=answer.result.value, detail=answer.detail)
    if answer.result is Requeue.ACCEPTED:
        say(f"job {job_id} is back in the queue")
    return answer


def _is_over(start: ThisStart, hands: Hands) -> bool:
    facts = look(start.job_id, hands)
    return facts is not None and Evidence(job=(facts,), restarts=start.restarts).restarted
