"""The end of the session's block: finished, stopped after a commit, or left by an exception.

Owns what each of these means for DONE, the decision and the peers. Knows neither signals nor what is tracked.
"""

from __future__ import annotations

import contextlib
import socket

from hpcresume import console
from hpcresume.errors import FencedError, HpcresumeError, UsageError
from hpcresume.model import Decision, Event
from hpcresume.session import outcomes
from hpcresume.session.attempt import Attempt, facts_of
from hpcresume.session.engine import Engine
from hpcresume.session.loop import Steps

__all__ = ["leave_block"]


def leave_block(attempt: Attempt, engine: Engine, steps: Steps | None, error: BaseException | None) -> None:
    """Collective unless an error ends it.

    Args:
        attempt: what ends.
        engine: its state.
        steps: the loop, None when it was never asked for.
        error: what leaves the block, None when its end was reached.

    Raises:
        Stopped: the loop was left by `break`, or user code caught the one that came before.
        HpcresumeError: the final state could not be saved, or nothing was trained.
    """
    if error is not None:
        _leave_by(attempt, engine, error)
        return
    try:
        _leave_by_its_end(attempt, engine, steps)
    except BaseException as ours:
        _leave_by(attempt, engine, ours)
        raise
    attempt.leave_together(0)


def _leave_by(attempt: Attempt, engine: Engine, error: BaseException) -> None:
    if error is engine.stop:
        attempt.leave_together(engine.stop.code if isinstance(engine.stop.code, int) else 0)
    elif isinstance(error, HpcresumeError) and error is engine.agreed:
        _record(attempt, engine, error)
        attempt.leave_together(1)
    else:
        _leave_alone(attempt, engine, error)


def _leave_by_its_end(attempt: Attempt, engine: Engine, steps: Steps | None) -> None:
    if steps is not None and steps.in_body and engine.stop is None:
        engine.leave_loop()
    if engine.finished:
        _close_the_run(attempt, engine)
    elif engine.stop is not None:  # user code caught it: it still holds
        raise engine.stop
    else:
        engine.agreed = UsageError(
            "the block ended before the loop over s.steps began, so nothing was trained or saved",
            where=str(attempt.run.root),
            hint="for step in s.steps(total_steps): ...",
        )
        attempt.decide(Decision.HOLD, str(engine.agreed), **facts_of(engine.agreed))
        raise engine.agreed


def _close_the_run(attempt: Attempt, engine: Engine) -> None:
    """Collective. DONE, only when every rank has come through the block without an exception."""
    with attempt.watchdog.guard("finish"):
        attempt.ranks.barrier()
    try:
        attempt.mark_done(engine.step, engine.newest)
    except HpcresumeError as error:
        engine.agreed = error
        reason = f"DONE could not be written: {error}"
        decision = Decision.COME_BACK if isinstance(error, FencedError) else Decision.HOLD
        attempt.decide(decision, reason, step=engine.step, generation=engine.newest, **facts_of(error))
        raise
    attempt.decide(Decision.DONE, "finished", step=engine.step, generation=engine.newest, cause_hint="done")


def _record(attempt: Attempt, engine: Engine, error: BaseException) -> None:
    text = "user called sys.exit" if isinstance(error, SystemExit) else str(error)
    fields = {"type": type(error).__name__, "message": text[:2000], "rank": attempt.ranks.rank, "step": engine.step}
    attempt.emit(Event("exception", {**fields, "host": socket.gethostname()}))


def _leave_alone(attempt: Attempt, engine: Engine, error: BaseException) -> None:
    """Neither saves nor finishes. Peers wait in some collective: they are ended, since they cannot be told."""
    _record(attempt, engine, error)
    attempt.close_files()
    attempt.stop_watching()
    if attempt.ranks.size > 1:
        console.tell(f"hpcresume: rank {attempt.ranks.rank} ends the job:")
        console.tell_error(error)
        console.flush()
        if outcomes.last_words is not None:
            with contextlib.suppress(Exception):  # nothing may keep the peers waiting
                outcomes.last_words(error)
        attempt.ranks.abort(error.exit_code if isinstance(error, HpcresumeError) else 1)
