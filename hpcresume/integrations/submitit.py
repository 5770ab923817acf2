"""`hr.Resumable` and `hr.submit`: functions that submitit runs, warned, saved and brought back.

submitit pickles functions and results; nothing else here does. What happens at the end of an attempt:

    debug     the function is called again, in this process, until it is done
    local     the task begins again by itself; at the controller's own time limit the controller restarts it
    slurm     the rank that kept the record requeues the job after the commit (`submitit_slurm`)
    launch    under `hpcresume launch`, as with `hr.submit` on Slurm, the supervisor does
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hpcresume.config.job_spec import JobSpec
from hpcresume.console import flush, tell
from hpcresume.errors import ConfigError
from hpcresume.integrations import submitit_slurm
from hpcresume.integrations.submitit_place import Place, begin_again_locally, join_local_ranks, local_time_is_up
from hpcresume.integrations.submitit_signals import forget_pending, warnings_kept
from hpcresume.io.durable import write_durably
from hpcresume.launch.rendezvous import LAUNCH_DIR, Rendezvous
from hpcresume.model import Cause, Decision
from hpcresume.session import outcomes
from hpcresume.session.outcomes import RunFinished, RunHeld, Stopped
from hpcresume.submit import submitit_jobs

__all__ = ["Resumable", "submit"]

RUN = "HPCRESUME_RUN"
"""Names the run to the function, as it does to commands of a batch script."""


class Resumable:
    """A function that uses `hr.session`, ready for `submitit.AutoExecutor(...).submit(hr.Resumable(fn), ...)`.

    It is warned by whatever signal its executor warns with, stops after a commit, and goes on in the next attempt;
    its result is that of the attempt that finishes. An exception is reported as submitit reports it, and ends the
    job. When the run was finished before, the result is the one that is there, or else None.

    Args:
        function: called with what `submit` was given.
        run: the run's directory: handed over as the keyword argument `run` when the function takes one, and as the
            variable HPCRESUME_RUN. In an array of Slurm's each task has its own, with `-TASK` behind it;
            `map_array` does that everywhere.
    """

    def __init__(self, function: Callable[..., Any], *, run: str | os.PathLike[str] | None = None) -> None:
        if not callable(function):
            raise ConfigError(f"{function!r} cannot be called", where="Resumable", hint="hr.Resumable(train)")
        self.function = function
        self.run = None if run is None else os.fspath(run)
        self._one_of_many = False
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __repr__(self) -> str:
        return f"Resumable({self.function!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; does not return when the attempt ends before the run."""
        place = Place.here(os.environ)
        kwargs = self._with_run(kwargs)
        if not place.executor:
            return self.function(*args, **kwargs)
        if place.executor == "local" and not place.supervised:
            join_local_ranks(os.environ)
        timeouts = _timeout_budget(place.preempt_signal)
        with warnings_kept(place.preempt_signal, for_good=place.executor != "debug") as keeper, _last_words(place):
            while True:
                try:
                    return self._attempt(place, timeouts, args, kwargs)
                except _Again:
                    keeper.forget()

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """For submitit alone, should a warning reach its handler before the function is called: the same again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self, *args, **kwargs)

    def map_array(self, executor: Any, *iterables: Iterable[Any]) -> list[Any]:
        """Like `executor.map_array(fn, ...)`, with a run of its own for each task: `run` with `-0`, `-1`, … behind it.

        Raises:
            ConfigError: there is no `run`, which the tasks would have to share.
        """
        if self.run is None:
            raise ConfigError("the tasks need a run each", where="map_array", hint='hr.Resumable(train, run="runs/a")')
        with executor.batch():
            return [
                executor.submit(self._of_task(index), *arguments)
                for index, arguments in enumerate(zip(*iterables, strict=True))
            ]

    def _of_task(self, index: int) -> Resumable:
        task = Resumable(self.function, run=f"{self.run}-{index}")
        task._one_of_many = True
        return task

    def _with_run(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.run is None:
            return kwargs
        task = "" if self._one_of_many else os.environ.get("SLURM_ARRAY_TASK_ID", "")
        run = os.environ[RUN] = f"{self.run}-{task}" if task else self.run
        takes = "run" not in kwargs and _takes_run(self.function)
        return {**kwargs, "run": run} if takes else kwargs

    def _attempt(self, place: Place, timeouts: int | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One attempt. Raises `_Again` when the next one begins in this process."""
        with _rendezvous(place) as rendezvous:
            try:
                return self.function(*args, **kwargs)
            except RunFinished:
                return _finished_before(place)
            except RunHeld as held:
                raise (held if place.supervised else _uncompleted("the run is held: look at it first")) from None
            except Stopped as stopped:
                tell(f"hpcresume: {stopped.reason}; comes back from {stopped.generation or 'the start'}")
                if not place.supervised:
                    _come_back(place, rendezvous, timeouts)
                raise


class _Again(Exception):
    """The next attempt begins here and now."""


def _come_back(place: Place, rendezvous: Rendezvous | None, timeouts: int | None) -> None:
    """Everything is committed on all ranks: begin again, as this executor can."""
    if place.executor == "debug":
        raise _Again
    flush()
    if place.executor == "local":
        if local_time_is_up(os.environ):
            from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

            raise SystemExit(LOCAL_REQUEUE_RETURN_CODE)
        forget_pending({signal.SIGUSR1, signal.SIGUSR2})
        begin_again_locally(os.environ)
    assert rendezvous is not None, "made for every task under Slurm"
    _come_back_in_slurm(place, rendezvous, timeouts)


def _come_back_in_slurm(place: Place, rendezvous: Rendezvous, timeouts: int | None) -> None:
    if rendezvous.claimed() is None:
        if submitit_slurm.wait_for_rank_0(place.result_file(0)):
            raise _uncompleted("task 0 says why")
        raise SystemExit(0)
    reason = submitit_slurm.bring_back(rendezvous, timeouts)
    if reason:
        error = _uncompleted(reason)
        # Slurm's pmix plugin ends the step with its first task that fails: the others report what is stored first.
        _write_error(place, error)
        time.sleep(submitit_slurm.OTHERS_SECONDS)
        raise error
    submitit_slurm.await_end()
    raise SystemExit(0)


def _finished_before(place: Place) -> None:
    """The run is done: keep the result that is there; without one there is nothing left to compute it from."""
    result = place.result_file()
    if result is not None and result.exists():
        raise RunFinished
    tell("hpcresume: the run was finished before this attempt: the result is None")


@contextlib.contextmanager
def _rendezvous(place: Place) -> Any:
    """The directory in which the session of rank 0 leaves what it claimed and decided, under Slurm without launch."""
    if place.executor != "slurm" or place.supervised:
        yield None
        return
    rendezvous = Rendezvous.create(None, {})
    os.environ[LAUNCH_DIR] = str(rendezvous.directory)
    try:
        yield rendezvous
    finally:
        os.environ.pop(LAUNCH_DIR, None)
        rendezvous.remove()


@contextlib.contextmanager
def _last_words(place: Place) -> Any:
    """A rank that ends its peers cannot return to submitit: its exception is reported before."""

    def report(error: BaseException) -> None:
        if isinstance(error, Exception):
            _hold(place, error)
            _write_error(place, error)

    outcomes.last_words = report
    try:
        yield
    except Exception as error:
        _hold(place, error)
        raise
    finally:
        outcomes.last_words = None


def _hold(place: Place, error: Exception) -> None:
    """Tell the supervisor that the error is reported, and that another attempt is not wanted."""
    directory = os.environ.get(LAUNCH_DIR)
    if not place.supervised or not directory:
        return
    reason = f"{type(error).__name__} is reported to submitit: {error}"[:500]
    facts = {"decision": Decision.HOLD.value, "reason": reason, "cause_hint": Cause.CRASH.value}
    with contextlib.suppress(OSError):  # on another node than the supervisor's
        write_durably(Path(directory) / "decision.json", json.dumps(facts).encode() + b"\n")


def _write_error(place: Place, error: Exception) -> None:
    """As submitit does it for an exception that reaches it (submitit/core/submission.py, process_job)."""
    from submitit.core import utils

    file = place.result_file()
    if file is None:
        return
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    with utils.temporary_save_path(file) as scratch:
        utils.cloudpickle_dump(("error", text), scratch)


def _timeout_budget(number: signal.Signals) -> int | None:
    """What is left of submitit's `max_num_timeout`: known to its handler alone, which is about to be replaced."""
    delayed = getattr(getattr(signal.getsignal(number), "__self__", None), "_delayed", None)
    left = getattr(delayed, "_timeout_countdown", None)
    return left if isinstance(left, int) else None


def _takes_run(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "run" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _uncompleted(reason: str) -> Exception:
    """The words and the kind of error that submitit has for a job that stays unfinished: it is stored as the result."""
    from submitit.core.utils import UncompletedJobError

    return UncompletedJobError(f"Job not requeued because: {reason}.")


def submit(
    spec: JobSpec | dict[str, Any] | str | os.PathLike[str],
    *iterables: Iterable[Any],
    cluster: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Any:
    """Submit the function of a job description through submitit.

    On Slurm the batch step runs `hpcresume launch`, which starts the ranks, warns them, names causes and requeues.

    Args:
        spec: path of a job.yaml, the same as a dict (where `function` and the arguments may be Python objects), or
            a `JobSpec`.
        iterables: as for `map_array`: one job for each set of arguments, each with a run of its own.
        cluster: "slurm", "local" or "debug"; None: Slurm where there is one, else this machine.
        folder: for submitit's files and logs; made private (0700), refused when it is somebody else's.
            Default: RUN/submitit.

    Returns:
        submitit's job, or a list of them with `iterables`.

    Raises:
        ConfigError: something in the description is wrong, or submitit is missing.
        RunDirectoryError: the folder is not ours alone.
    """
    request = submitit_jobs.read_request(spec, cluster=cluster, folder=folder)
    task = Resumable(request.function, run=request.run)
    if not iterables:
        return submitit_jobs.submit_one(request, task)
    with submitit_jobs.prepared(request, array=True) as executor:
        return task.map_array(executor, *iterables)
