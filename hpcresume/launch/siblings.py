"""Other jobs of the same run in the queue: one that goes on instead, one that stands behind, one that asks for less.

Slurm does not requeue every job, it can lose one that it has requeued (its script is never run), and nobody of ours
is awake while a job waits. What helps in each case is a second job of the same script that Slurm starts when it is
time. Whichever job of the run starts first cancels those that wait; two that start at once meet at the run's claim,
which only one of them gets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpcresume.errors import SlurmError
from hpcresume.io.durable import make_directory
from hpcresume.io.paths import RunPaths
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.once_more import OnceMore, submit_once_more
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.patience import PATIENCE
from hpcresume.model import EXIT_HOLD
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.commands import job_alive, show_job
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.resubmit import cancel_waiting, cluster_requeues
from hpcresume.slurm.sibling_list import (
    BEHIND,
    GUARD,
    Sibling,
    can_note,
    guard_words,
    note_ended,
    note_gone,
    note_waiting,
    read_siblings,
)

__all__ = [
    "GUARD",
    "RESUBMITTED",
    "dismiss",
    "forbidden_by_cluster",
    "needless",
    "resubmit",
    "stand_down",
    "stands_behind",
    "take_over",
    "wait_elsewhere",
]

Record = Callable[..., Any]

SETTLING, LOOK_EVERY = 180.0, 5.0
"""Seconds to wait for the job before to be seen as dead, and between two looks."""
FALLBACK, RESUBMITTED = "fallback", "resubmitted"


def forbidden_by_cluster(hands: Hands) -> bool | None:
    """Does the cluster forbid to requeue jobs (JobRequeue=0), so that a job's Requeue=0 is not its user's wish? None:
    it cannot be asked.
    """
    requeues = cluster_requeues(execute=hands.execute, sleep=hands.sleep)
    return None if requeues is None else not requeues


def resubmit(
    slurm: SlurmEnvironment, run: RunPaths, hands: Hands, record: Record, *, pause: float, guard: bool = False,
    hurry: bool = False, full_limit: str = "", exclude: str | None = None, resources: Sequence[str] = (),
    facts: JobFacts | None = None,
) -> str | None:  # fmt: skip
    """Submit the job once more, to start when this one is over; its number, or None, and said, when it cannot be.

    Args:
        slurm: the job that Slurm would not requeue.
        run: its run. While it cannot be written, nothing is submitted; that is waited for.
        hands: how to reach Slurm.
        record: keeps an event in the journal.
        pause: seconds until the new job may start.
        guard: leave a guard behind the new job at once, should its script never run.
        hurry: Slurm is about to kill us: nothing can be waited for.
        full_limit: the job's full time limit, should Slurm have lowered it to its `--time-min`.
        exclude: the nodes that the new job is to keep off; None: those that the user wants.
        resources: options of sbatch for other resources than the job's.
        facts: what Slurm said of the job last.
    """
    begin = [f"--begin=now+{round(pause)}"] if pause >= 1 else []
    until = hands.clock() + (0.0 if hurry else PATIENCE)
    while not can_note(run.root, RESUBMITTED, slurm.job_id or "") and hands.clock() < until:
        hands.sleep(60)
    this = slurm.job_id or ""
    words = (f"--dependency=afterany:{this}", *begin, *resources)
    known = facts if hurry else None
    number = submit_once_more(OnceMore(slurm, run, RESUBMITTED, this, words, full_limit, exclude, until, known), hands)
    record("resubmitted", job_id=number)
    if number is not None:
        say(f"job {number} goes on when this one is over")
        # Should Slurm start this one again all the same, that start cancels it.
        note_waiting(run.root, Sibling(number, RESUBMITTED, slurm.job_id or ""))
        if guard:
            _guard(slurm, run, hands, number, full_limit)
    return number


def wait_elsewhere(
    options: LaunchOptions, slurm: SlurmEnvironment, run: RunPaths | None, hands: Hands, record: Record,
    of: str | None = None,
) -> None:  # fmt: skip
    """Should the job, or `of` that goes on instead, wait too long, another one asks for the fallback's resources."""
    wanted = options.fallback.named and options.fallback.after_waiting is not None
    if wanted and run is not None and slurm.job_id is not None:
        words = _fallback_options(options, slurm)
        number = _add(OnceMore(slurm, run, FALLBACK, of or slurm.job_id, words, options.time_limit), hands)
        record("stands-behind", why=FALLBACK, job_id=number)


def stands_behind(environ: Mapping[str, str], slurm: SlurmEnvironment) -> tuple[str, str] | None:
    """Why this job was submitted by another job of the run, and which; None when a person submitted it, and from its
    second start on: by then it is the run's job like any other.
    """
    why, _, of = environ.get(BEHIND, "").partition(":")
    return (why, of) if why and of and not slurm.restart_count else None


def needless(slurm: SlurmEnvironment, run: RunPaths, hands: Hands) -> str:
    """Why this job, which stands behind another, has nothing to do; "" when it has.

    It has when the other was lost: its script did not run, or its supervisor was killed before it could decide.
    """
    behind = stands_behind(hands.environ, slurm)
    if behind is None:
        return ""
    of = behind[1]
    if behind[0] == FALLBACK and not run.run_json.exists():
        return f"the run cannot be read here, and job {of} waits for it too: nothing to start"
    try:
        name = hands.environ.get("SLURM_JOB_NAME")
        before = show_job(of, name=name, execute=hands.execute, sleep=hands.sleep)
    except SlurmError:
        return ""  # forgotten by Slurm, or nobody to ask: the run's claim keeps two from training at once
    if before.state == "CANCELLED":
        return f"job {of}, behind which this one stands, was cancelled: nothing to start"
    if before.state == "FAILED" and before.exit_code == EXIT_HOLD:
        return f"job {of}, behind which this one stands, was held (exit code {EXIT_HOLD}): nothing to start"
    if (of, before.restarts) in read_siblings(run.root).ended:
        return f"job {of}, behind which this one stands, ended as was decided: nothing to start"
    return ""


def take_over(options: LaunchOptions, slurm: SlurmEnvironment, run: RunPaths, hands: Hands) -> None:
    """At the start of a job: cancel the run's other jobs that wait, and leave a guard behind this one."""
    job_id = slurm.job_id
    if job_id is None:
        return
    waiting = read_siblings(run.root).waiting
    guards = {each.job_id for each in waiting if each.why == GUARD and each.of == job_id and _is_there(each, hands)}
    behind = stands_behind(hands.environ, slurm)
    if behind is not None:
        _await_death(behind[1], hands)
    others = {each.job_id for each in waiting} | {each.of for each in waiting} | ({behind[1]} if behind else set())
    if any(each.job_id == job_id for each in waiting):
        note_gone(run.root, job_id)  # it waits no longer
    _cancel(run, others - guards - {job_id}, hands)
    if not guards and _guard_wanted(options, hands):
        if behind is None and not slurm.restart_count:
            with contextlib.suppress(OSError):  # the very first start: the session makes the rest of it
                make_directory(run.root)
        _guard(slurm, run, hands, job_id, options.time_limit)


def _guard_wanted(options: LaunchOptions, hands: Hands) -> bool:
    if options.guard is None:
        return options.requeue and forbidden_by_cluster(hands) is True
    return options.guard


def stand_down(slurm: SlurmEnvironment, run: RunPaths | None, hands: Hands, successor: str | None = None) -> None:
    """The job ends as was decided: nobody has to stand behind it any more, but the `successor` that goes on instead."""
    if run is None or slurm.job_id is None:
        return
    siblings = read_siblings(run.root).waiting
    waiting = {each.job_id for each in siblings if successor is None or each.of != successor}
    waiting -= {slurm.job_id, successor}
    if waiting and successor is None:
        note_ended(run.root, slurm.job_id, slurm.restart_count)
    _cancel(run, waiting, hands)


def dismiss(slurm: SlurmEnvironment, run: RunPaths, hands: Hands) -> None:
    """This job steps back: nobody has to stand behind it. What stands behind the run's other jobs is theirs."""
    _cancel(run, {each.job_id for each in read_siblings(run.root).waiting if each.of == slurm.job_id}, hands)


def _is_there(sibling: Sibling, hands: Hands) -> bool:
    """May it be in the queue still? Its owner may have cancelled it, or it has left and could not say so.

    squeue is not asked: where a cache stands before it, it may not know yet of a job that has just been submitted.
    """
    try:
        name = hands.environ.get("SLURM_JOB_NAME")
        return show_job(sibling.job_id, name=name, execute=hands.execute, sleep=hands.sleep).state == "PENDING"
    except SlurmError as error:
        return "invalid job id" not in str(error).lower()


def _await_death(job_id: str, hands: Hands) -> None:
    """Slurm starts a job as soon as the one before it is over, and may still show that one as alive (it is
    COMPLETING, or squeue's answer comes from a cache): its ranks' claim would be refused.
    """
    until = hands.clock() + SETTLING
    while job_alive(job_id, execute=hands.execute, sleep=hands.sleep) and hands.clock() < until:
        hands.sleep(LOOK_EVERY)


def _cancel(run: RunPaths, jobs: set[str], hands: Hands) -> None:
    for job_id in sorted(jobs):
        if cancel_waiting(job_id, execute=hands.execute, sleep=hands.sleep):
            note_gone(run.root, job_id)
        else:
            say(f"job {job_id} of this run may still be waiting: Slurm could not be asked")


def _guard(slurm: SlurmEnvironment, run: RunPaths, hands: Hands, of: str, full_limit: str) -> None:
    _add(OnceMore(slurm, run, GUARD, of, guard_words(of), full_limit), hands)


def _add(wanted: OnceMore, hands: Hands) -> str | None:
    """Submit a job that stands behind another one."""
    number = submit_once_more(wanted, hands)
    if number is not None:
        whom = "this one" if wanted.of == wanted.slurm.job_id else f"job {wanted.of}"
        say(f"job {number} stands behind {whom} ({wanted.why})")
        note_waiting(wanted.run.root, Sibling(number, wanted.why, wanted.of))
    return number


def _fallback_options(options: LaunchOptions, slurm: SlurmEnvironment) -> list[str]:
    """Later options of sbatch win over earlier ones, so these stand behind what the job got before."""
    fallback = options.fallback
    words = [f"--begin=now+{round(fallback.after_waiting or 0)}"]
    if fallback.partition is not None:
        words.append(f"--partition={fallback.partition}")
    nodes = slurm.nnodes or 1
    if fallback.nodes is not None and fallback.nodes < nodes:
        words.append(f"--nodes={fallback.nodes}-{nodes}")
        if slurm.ntasks is not None:
            words.append(f"--ntasks={max(fallback.nodes, slurm.ntasks * fallback.nodes // nodes)}")
    return words
