"""`hr.Resumable` and `hr.submit`: functions that submitit runs, warned, saved and brought back.

submitit pickles functions and results; nothing else here does. What happens at the end of an attempt:

    debug     the function is called again, in this process, until it is done
    local     the task begins again by itself; at the controller's own time limit the controller restarts it
    slurm     the rank that kept the record requeues the job after the commit (`submitit_slurm`)
    launch    under `hpcresume launch`, as with `hr.submit` on Slurm, the supervisor does
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcresume.config.job_spec import JobSpec
from hpcresume.console import flush, tell
from hpcresume.errors import ConfigError, FencedError, RunBusyError
from hpcresume.integrations import submitit_slurm
from hpcresume.integrations.submitit_alone import alone
from hpcresume.integrations.submitit_call import check_call, refuse_finished, takes_run
from hpcresume.integrations.submitit_errors import reported, uncompleted, write_error
from hpcresume.integrations.submitit_local import begin_again_locally, join_local_ranks, local_time_is_up
from hpcresume.integrations.submitit_place import Place
from hpcresume.integrations.submitit_record import record_submission
from hpcresume.integrations.submitit_signals import forget_pending, warnings_kept
from hpcresume.launch.rendezvous import LAUNCH_DIR, Rendezvous
from hpcresume.session.outcomes import RunFinished, RunHeld, Stopped
from hpcresume.session.part import newest_attempt
from hpcresume.submit import submitit_jobs

__all__ = ["Resumable", "submit"]

LEAVE_SECONDS = 10.0
"""How long ranks that leave to a newer start wait for each other."""
RUN = "HPCRESUME_RUN"
"""Names the run to the function, as it does to commands of a batch script."""


class Resumable:
    """A function that uses `hr.session`, ready for `submitit.AutoExecutor(...).submit(hr.Resumable(fn), ...)`.

    It is warned by whatever signal its executor warns with, stops after a commit, and goes on in the next attempt;
    its result is that of the attempt that finishes. An exception is reported as submitit reports it, and ends the
    job, and so does `sys.exit`. When the run was finished before, the result is the one that is there, or else None.

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
        run = self._own_run()
        if run is not None and "run" not in kwargs and takes_run(self.function):
            kwargs = {**kwargs, "run": run}
        with _variable(RUN, run):
            return self._call(Place.here(os.environ), args, kwargs)

    def _call(self, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not place.executor:
            return self.function(*args, **kwargs)
        result = place.result_file()
        if place.executor == "local" and not place.supervised and result is not None:
            join_local_ranks(os.environ, result.parent)
        timeouts = _timeout_budget(place.preempt_signal)
        if place.executor == "slurm" and not place.supervised:
            _stay_if_held(self._own_run())
        with warnings_kept(place.preempt_signal, for_good=place.executor != "debug") as keeper, reported(place):
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
            ConfigError: there is no `run`, which the tasks would have to share; the iterables are empty, or not of one
                length; or the function does not take such arguments.
        """
        if self.run is None:
            raise ConfigError("the tasks need a run each", where="map_array", hint='hr.Resumable(train, run="runs/a")')
        sets = submitit_jobs.argument_sets(iterables)
        for arguments in sets:
            check_call(self.function, arguments, {}, run=self.run, where="map_array")
        return self._submit_each(executor, sets, {})

    def _submit_each(self, executor: Any, sets: list[tuple[Any, ...]], kwargs: Mapping[str, Any]) -> list[Any]:
        with executor.batch():
            return [executor.submit(self._of_task(index), *each, **kwargs) for index, each in enumerate(sets)]

    def _of_task(self, index: int) -> Resumable:
        task = Resumable(self.function, run=f"{self.run}-{index}")
        task._one_of_many = True
        return task

    def _own_run(self) -> str | None:
        task = "" if self._one_of_many else os.environ.get("SLURM_ARRAY_TASK_ID", "")
        return f"{self.run}-{task}" if self.run is not None and task else self.run

    def _attempt(self, place: Place, timeouts: int | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One attempt. Raises `_Again` when the next one begins in this process."""
        with _rendezvous(place) as rendezvous:
            try:
                return self.function(*args, **kwargs)
            except RunFinished:
                return _finished_before(place)
            except RunBusyError as busy:
                raise (busy if place.supervised else self._shared(busy)) from None
            except RunHeld as held:
                raise (held if place.supervised else uncompleted("the run is held: look at it first")) from None
            except Stopped as stopped:
                tell(f"hpcresume: {stopped.reason}; comes back from {stopped.generation or 'the start'}")
                if not place.supervised:
                    _come_back(place, rendezvous, timeouts)
                raise
            except FencedError as fenced:
                if place.executor == "slurm":
                    _leave_to_the_newer(fenced)
                raise
            except SystemExit as left:  # which submitit would take for an end without a word
                raise uncompleted(f"the function called sys.exit({left.code!r})") from left

    def _shared(self, busy: RunBusyError) -> RunBusyError:
        """`executor.map_array(hr.Resumable(f, run=…), …)` gives all tasks one run: say what gives each its own."""
        if self.run is None or self._one_of_many:
            return busy
        own = f"hr.Resumable({self.__name__}, run={self.run!r}).map_array(executor, …) gives each task a run of its own"
        return RunBusyError(busy.what, where=busy.where, hint=f"{busy.hint}; for several tasks, {own}")


def _stay_if_held(run: str | None) -> None:
    """Before anything begins: too many lost attempts hold the job, which Slurm then ends, to stay in the queue."""
    if run is None:
        return
    end = submitit_slurm.EndSequence()  # from before the hold on, whose TERM would end the scontrol that asks for it
    if submitit_slurm.hold_before_start(Path(run)):
        submitit_slurm.await_end(None, end)
        raise SystemExit(0)
    end.give_back()


def _leave_to_the_newer(fenced: FencedError) -> None:
    """Another start of the job is at work (split brain): its result is the one that counts, and nothing is stored."""
    tell(f"hpcresume: {fenced.what}")
    flush()
    # Slurm's pmix plugin kills the step of a task that fails, or is gone without having left MPI, by its number, and
    # the newer start's step has the same (seen): so all ranks, which are fenced off together, leave in peace.
    leaving = threading.Thread(target=_leave_mpi, name="leave MPI", daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    os._exit(0)  # any other end would be told to submitit, in the files of the start that goes on


def _leave_mpi() -> None:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()


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
    end = submitit_slurm.EndSequence()
    if rendezvous.claimed() is None:
        trouble = submitit_slurm.wait_for_rank_0(place.result_file(0), newest_attempt(), end)
        if trouble:
            raise uncompleted(trouble)
        raise SystemExit(0)
    reason = submitit_slurm.bring_back(rendezvous, timeouts, end)
    if reason:
        error = uncompleted(reason)
        # Slurm's pmix plugin ends the step with its first task that fails: the others report what is stored first.
        write_error(place, error)
        time.sleep(submitit_slurm.OTHERS_SECONDS)
        raise error
    submitit_slurm.await_end(newest_attempt(), end)
    raise SystemExit(0)


def _finished_before(place: Place) -> None:
    """The run is done: keep the result that is there; without one there is nothing left to compute it from."""
    result = place.result_file()
    if result is not None and result.exists():
        raise RunFinished
    tell("hpcresume: the run was finished before this attempt: the result is None")


@contextlib.contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """An environment variable for the length of a block: what was there before comes back. None changes nothing."""
    if value is None:
        yield
        return
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _rendezvous(place: Place) -> Any:
    """The directory in which the session of rank 0 leaves what it claimed and decided, under Slurm without launch."""
    if place.executor != "slurm" or place.supervised:
        yield None
        return
    rendezvous = Rendezvous.create(None, {})
    try:
        with _variable(LAUNCH_DIR, str(rendezvous.directory)):
            yield rendezvous
    finally:
        rendezvous.remove()


def _timeout_budget(number: signal.Signals) -> int | None:
    """What is left of submitit's `max_num_timeout`: known to its handler alone, which is about to be replaced."""
    delayed = getattr(getattr(signal.getsignal(number), "__self__", None), "_delayed", None)
    left = getattr(delayed, "_timeout_countdown", None)
    return left if isinstance(left, int) else None


def submit(
    spec: JobSpec | dict[str, Any] | str | os.PathLike[str],
    *iterables: Iterable[Any],
    cluster: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    again: bool = False,
) -> Any:
    """Submit the function of a job description through submitit.

    On Slurm the batch step runs `hpcresume launch`, which starts the ranks, warns them, names causes and requeues.

    Args:
        spec: path of a job.yaml, the same as a dict (where `function` and the arguments may be Python objects), or
            a `JobSpec`. Where the function has a parameter `run`, or `**kwargs`, it is handed the run's directory.
        iterables: as for `map_array`: one job for each set of arguments, each with a run of its own. They are the
            positional arguments; the description's `kwargs` are common to all.
        cluster: "slurm", "local" or "debug"; None: Slurm where there is one, else this machine.
        folder: for submitit's files and logs; made private (0700), refused when it is somebody else's.
            Default: RUN/submitit.
        again: also when a run has a job in Slurm's queue or at work.

    Returns:
        submitit's job, or a list of them with `iterables`.

    Raises:
        ConfigError: something in the description is wrong; the iterables are empty, not of one length, or given
            together with `args`; the function does not take such arguments; the run, or with `iterables` every one
            of them, is finished; or submitit is missing.
        RunBusyError: a job of the run is in Slurm's queue or at work, or is being submitted at this moment.
        RunDirectoryError: the folder is not ours alone.
        SlurmError: sbatch refuses.
    """
    request = submitit_jobs.read_request(spec, cluster=cluster, folder=folder)
    task = Resumable(request.function, run=request.run)
    if not iterables:
        check_call(request.function, request.args, request.kwargs, run=request.run)
        refuse_finished([request.run], request.folder)
        with alone(request, [request.run], again=again):
            job = submitit_jobs.submit_one(request, task)
            if request.cluster == "slurm":
                record_submission(request, request.run, str(job.job_id))
        return job
    if request.args:
        what = "positional arguments are in the description and in the lists, and each task has one set of them"
        raise ConfigError(what, where="args", hint="a list for each of them, or kwargs for what all tasks share")
    sets = submitit_jobs.argument_sets(iterables)
    for arguments in sets:
        check_call(request.function, arguments, request.kwargs, run=request.run)
    runs = [f"{request.run}-{index}" for index in range(len(sets))]
    refuse_finished(runs, request.folder)
    with alone(request, runs, again=again), submitit_jobs.prepared(request, tasks=len(sets)) as executor:
        jobs = task._submit_each(executor, sets, request.kwargs)
    for index, job in enumerate(jobs if request.cluster == "slurm" else ()):
        record_submission(request, runs[index], str(job.job_id), task=index)
    return jobs
