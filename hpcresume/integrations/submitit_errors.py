"""How a task's error reaches those who ask for it: submitit, which stores it as the result, and `hpcresume launch`."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from hpcresume.console import flush, tell
from hpcresume.errors import PeerFailureError
from hpcresume.integrations.submitit_place import Place
from hpcresume.io.durable import write_durably
from hpcresume.io.paths import RunPaths
from hpcresume.launch.rendezvous import LAUNCH_DIR
from hpcresume.model import EXIT_COME_BACK
from hpcresume.session import outcomes
from hpcresume.session.part import hold_attempt, hold_facts, newest_attempt

__all__ = ["reported", "uncompleted", "write_error"]


@contextlib.contextmanager
def reported(place: Place) -> Iterator[None]:
    """Whatever ends the block is known to submitit and to the supervisor, in words that say what it was.

    A rank that ends its peers cannot return to submitit: its exception is reported before.
    """

    def report(error: BaseException) -> None:
        if isinstance(error, SystemExit):
            error = uncompleted(f"the function called sys.exit({error.code!r})")
        error = _with_culprit(place, error)
        _hold(place, error)
        write_error(place, error)

    outcomes.last_words = report
    try:
        yield
    except Exception as error:
        if place.executor == "slurm" and _outlived():
            tell(f"hpcresume: a newer attempt of the run is at work; not reported: {type(error).__name__}: {error}")
            flush()
            os._exit(EXIT_COME_BACK)
        named = _with_culprit(place, error)
        _hold(place, named)
        if named is error:
            raise
        raise named from error
    except KeyboardInterrupt as error:  # submitit stores exceptions of the other kind only
        write_error(place, error)
        raise
    finally:
        outcomes.last_words = None


def _outlived() -> bool:
    """Has a newer attempt of the run begun? Then the files in which submitit looks for a result are that one's."""
    part = newest_attempt()
    if part is None or not part.root.name.isdecimal():
        return False
    with contextlib.suppress(OSError):
        return RunPaths(part.root.parent.parent).attempt(int(part.root.name) + 1).claim.exists()
    return False


def _with_culprit(place: Place, error: BaseException) -> BaseException:
    """Submitit shows the error of the first task that has one: one that only lost a peer names the task that failed."""
    if not isinstance(error, PeerFailureError):
        return error
    failed = next((task for task, file in place.other_result_files() if file.exists()), None)
    if failed is None:
        return error
    return PeerFailureError(
        f"task {failed} has failed", where=error.what, hint=f"job.task({failed}).exception() for the reason"
    )


def _hold(place: Place, error: BaseException) -> None:
    """Tell the supervisor that the error is reported, and that another attempt is not wanted.

    Into the attempt, which every node sees; and into the supervisor's directory, since the error may come before there
    is an attempt. That one may lie on a disk of the supervisor's node alone.
    """
    directory = os.environ.get(LAUNCH_DIR)
    if not place.supervised or not directory:
        return
    reason = f"{type(error).__name__} is reported to submitit: {error}"[:500]
    with contextlib.suppress(OSError):
        hold_attempt(reason)
    with contextlib.suppress(OSError):
        write_durably(Path(directory) / "decision.json", hold_facts(reason))


def write_error(place: Place, error: BaseException) -> None:
    """As submitit does it for an exception that reaches it (submitit/core/submission.py, process_job)."""
    from submitit.core import utils

    file = place.result_file()
    if file is None or (place.executor == "slurm" and _outlived()):
        return
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    with utils.temporary_save_path(file) as scratch:
        utils.cloudpickle_dump(("error", text), scratch)


def uncompleted(reason: str) -> Exception:
    """The words and the kind of error that submitit has for a job that stays unfinished: it is stored as the result."""
    from submitit.core.utils import UncompletedJobError

    return UncompletedJobError(f"Job not requeued because: {reason}.")
