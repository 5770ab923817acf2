"""Before any rank starts: may this start train at all, was it released by a person, and what do its ranks get told?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hpcresume.errors import ConfigError, RunBusyError
from hpcresume.io.paths import RunPaths
from hpcresume.launch.barren import note_barren_start, with_barren_starts
from hpcresume.launch.closing import close_before_start, lost_nodes
from hpcresume.launch.comeback import Case, carry_out
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import say
from hpcresume.launch.notes import MARK, read_notes, write_notes
from hpcresume.launch.options import LaunchOptions, Outcome
from hpcresume.launch.other_hands import step_aside
from hpcresume.launch.predecessors import lead_over_from, wait_for_stages
from hpcresume.launch.records import holding_job, nodes_of, past_attempts
from hpcresume.launch.rendezvous import RELEASE
from hpcresume.launch.siblings import GUARD, RESUBMITTED, needless, stand_down, stands_behind, take_over
from hpcresume.model import EXIT_DONE, EXIT_HOLD, Cause, Decision
from hpcresume.policy.budgets import PastAttempt, micro_batches
from hpcresume.policy.cause import Ending, Evidence
from hpcresume.policy.requeue import Verdict, spent_budget
from hpcresume.policy.suspects import add_lost
from hpcresume.slurm.changes import Change, change_job, comment_of
from hpcresume.slurm.commands import down_nodes, job_alive
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["MICRO_BATCHES", "Admission", "admit", "fewer_tasks"]

MICRO_BATCHES = "HPCRESUME_MICRO_BATCHES"
"""Tells the ranks into how many pieces each batch is to be cut; absent: 1."""


@dataclass(frozen=True)
class Admission:
    """What became of the wish to start.

    Attributes:
        options: the user's, with `release` when a person has let a held job go on.
        refused: what to end with instead of a start.
        shared: variables that every rank must see.
    """

    options: LaunchOptions
    refused: Outcome | None = None
    shared: Mapping[str, str] = field(default_factory=dict)


def admit(options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands) -> Admission:
    """DONE first: a finished run never runs again. A held one only when a person says so.

    Raises:
        ConfigError: batches are to be cut after want of memory, and the run is not named: nobody could count.
    """
    if options.run is None:
        if options.budgets.micro_batches > 1:
            raise ConfigError("needs the run's history", where="--micro-batches", hint="--run RUN")
        waits = wait_for_stages(options, slurm, hands)
        if waits is not None:
            return Admission(options, waits)
        return Admission(options, shared={RELEASE: "1"} if options.release else {})
    run = RunPaths(options.run)
    if run.done.exists():
        stand_down(slurm, run, hands)
        return _refusal(options, run, Decision.DONE, f"{run.root} is finished (DONE exists): nothing to start")
    why = needless(slurm, run, hands)
    if why:
        return _refusal(options, run, Decision.COME_BACK, why)
    busy = _at_work(run, slurm, hands)
    if busy:
        say(busy)
        return Admission(options, Outcome(RunBusyError.exit_code, Decision.HOLD.value, reason=busy, run=str(run.root)))
    waits = step_aside(options, slurm, run, hands, refused=False) or wait_for_stages(options, slurm, hands)
    if waits is not None:
        return Admission(options, waits)
    close_before_start(run, slurm, hands)
    past = _past(run, slurm)
    last = past[-1] if past else None
    if last is not None and last.decided == Decision.HOLD.value and not options.release:
        if not _let_go_on(last, slurm, stands_behind(hands.environ, slurm)):
            # After 24.05 Slurm restarts a job that exits within a grace window, whatever its exit code says.
            why = f"{run.root} is held and Slurm started the job again by itself; look at it, then use --release"
            return _refusal(options, run, Decision.HOLD, why)
        say("the run was held, and a person has let it go on: it has fresh budgets")
        options = replace(options, release=True)
        _give_comment_back(slurm, run, hands)
    by_hand = options.release or not (slurm.restart_count or stands_behind(hands.environ, slurm))
    spent = None if by_hand else spent_budget(past, options.budgets)
    if spent is not None:
        return _hold(options, slurm, run, past, *spent, hands)
    if last is not None:
        _suspect_nodes(options, run, last, hands, again=not by_hand)
    take_over(options, slurm, run, hands)
    _lead_over(options, slurm, run, hands)
    return Admission(options, shared=_shared(options, past))


def _hold(
    options: LaunchOptions,
    slurm: SlurmEnvironment,
    run: RunPaths,
    past: tuple[PastAttempt, ...],
    cause: Cause,
    reason: str,
    hands: Hands,
) -> Admission:
    """Nobody could decide after the attempt before: this start does it, and trains no more."""
    verdict = Verdict(Decision.HOLD, False, EXIT_HOLD, reason, keep=True)
    this = PastAttempt(0, cause, decided=verdict.decision.value, kept=options.stay)
    note_barren_start(run.root, slurm, this)
    case = Case(options, slurm, run, None, (*past, this), Ending(cause, (reason,)),
                Evidence(restarts=slurm.restart_count), verdict, _no_journal)  # fmt: skip
    held = carry_out(case, hands).held
    outcome = Outcome(EXIT_HOLD, verdict.decision.value, cause.value, reason, run=str(run.root), held=held)
    return Admission(options, outcome)


def _at_work(run: RunPaths, slurm: SlurmEnvironment, hands: Hands) -> str:
    """Which other job trains this run at this moment, in words; "" for none. Its guard, too, is none of our business.

    A job that comes back to a run that another one has meanwhile waits for it instead (`step_aside`).
    """
    if slurm.job_id is None or slurm.restart_count or stands_behind(hands.environ, slurm):
        return ""
    try:
        newest = max(run.attempt_numbers(), default=0)
    except OSError:
        return ""
    holder = holding_job(run.attempt(newest)) if newest else None
    if not holder or holder == slurm.job_id or not job_alive(holder, execute=hands.execute, sleep=hands.sleep):
        return ""
    return f"job {holder} is still running attempt {newest} of {run.root}: wait for it, or cancel it"


def _suspect_nodes(options: LaunchOptions, run: RunPaths, last: PastAttempt, hands: Hands, *, again: bool) -> None:
    """MPI notices a dead node within a second, Slurm after its SlurmdTimeout: what looked like a crash then, may have
    been a lost node. It is down now, so not among this start's; the next one is kept off it. `again`: the last attempt
    has ended just now, so that what is down was probably lost under it.
    """
    if last.attempt == 0 or options.exclusion.seconds <= 0:
        return
    lost = lost_nodes(run, last.attempt + 1)
    if not lost and again and last.cause in (Cause.CRASH, Cause.UNKNOWN):
        down = down_nodes(nodes_of(run.attempt(last.attempt)), execute=hands.execute, sleep=hands.sleep)
        lost = [(node, hands.clock()) for node in down]
        if down:
            say(f"{', '.join(down)} is down since the last attempt, which may have ended by that")
    notes = read_notes(run.root)
    suspects = add_lost(notes.suspects, lost, options.exclusion)
    if suspects != notes.suspects:
        write_notes(run.root, replace(notes, suspects=suspects))


def _no_journal(event: str, **fields: object) -> None:
    """There is no attempt whose journal could keep it."""


def _let_go_on(last: PastAttempt, slurm: SlurmEnvironment, behind: tuple[str, str] | None) -> bool:
    """Has a person let the held run go on? Whoever submits it anew has; so has who releases a job that stayed in the
    queue. That a guard starts means that the job before it is over, which a held job comes to only when released. A
    job that was submitted to go on instead was released before, however late this node sees that.
    """
    if behind is not None:
        return behind[0] == RESUBMITTED or (behind[0] == GUARD and last.kept)
    return last.kept or not slurm.restart_count


def fewer_tasks(environ: Mapping[str, str]) -> dict[str, str]:
    """SLURM_NTASKS as it is now, where a fallback has left the job with fewer nodes than it was submitted for.

    Slurm keeps what sbatch wrote down (seen on 22.05), and srun would want more processors than there are; how many
    tasks go on each node it says right. Empty when nothing is to be changed.
    """
    said, layout = environ.get("SLURM_NTASKS", ""), environ.get("SLURM_TASKS_PER_NODE", "")
    parts = [re.fullmatch(r"(\d{1,6})(?:\(x(\d{1,6})\))?", part) for part in layout.split(",")]
    if not said.isdecimal() or not all(parts):
        return {}
    now = sum(int(part[1]) * int(part[2] or 1) for part in parts if part is not None)
    if not 0 < now < int(said):
        return {}
    return {name: str(now) for name in ("SLURM_NTASKS", "SLURM_NPROCS") if name in environ}


def _lead_over(options: LaunchOptions, slurm: SlurmEnvironment, run: RunPaths, hands: Hands) -> None:
    """Stages that wait for a job of this run, and saw it end otherwise than well, wait for this one."""
    behind = stands_behind(hands.environ, slurm)
    if behind is not None:
        lead_over_from(behind[1], slurm, run, hands)
    elif options.stage and slurm.restart_count and slurm.job_id is not None:
        lead_over_from(slurm.job_id, slurm, run, hands)
        if options.after:
            _give_comment_back(slurm, run, hands)


def _shared(options: LaunchOptions, past: tuple[PastAttempt, ...]) -> dict[str, str]:
    shared = {RELEASE: "1"} if options.release else {}
    if options.budgets.micro_batches > 1:
        pieces = micro_batches(past, options.budgets.micro_batches)
        if pieces > 1:
            say(f"each batch is cut into {pieces} pieces, after ends for want of memory")
        shared[MICRO_BATCHES] = str(pieces)
    return shared


def _past(run: RunPaths, slurm: SlurmEnvironment) -> tuple[PastAttempt, ...]:
    try:
        return with_barren_starts(past_attempts(run), run.root, slurm)
    except OSError as error:
        say(f"the history of the run cannot be read: {error}")
        return ()


def _give_comment_back(slurm: SlurmEnvironment, run: RunPaths, hands: Hands) -> None:
    """The words that said why the job was held are untrue from now on."""
    notes = read_notes(run.root)
    if slurm.job_id is None or notes.job_id != slurm.job_id or notes.comment is None:
        return
    now = comment_of(slurm.job_id, execute=hands.execute, sleep=hands.sleep)
    if now is not None and now.startswith(MARK):
        change_job(slurm.job_id, [Change("Comment", notes.comment, "")], execute=hands.execute, sleep=hands.sleep)
    write_notes(run.root, replace(notes, comment=None))


def _refusal(options: LaunchOptions, run: RunPaths, decision: Decision, reason: str) -> Admission:
    say(reason)
    code = EXIT_HOLD if decision is Decision.HOLD else EXIT_DONE
    return Admission(options, Outcome(code, decision.value, reason=reason, run=str(run.root)))
