"""`hr.session`: the public face. Checks the order of calls; the work is done by the modules beside it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from hpcresume.comm.last_resort import end_peers_on_uncaught_errors
from hpcresume.errors import HpcresumeError, SessionOpenError, UsageError
from hpcresume.model import Event
from hpcresume.policy.cause import ENDS_JOB
from hpcresume.policy.samples import SampleOrder
from hpcresume.session.attempt import Attempt, open_attempt, refuse_to_launcher, say
from hpcresume.session.ddp import unsteady_buckets
from hpcresume.session.engine import Engine
from hpcresume.session.fetching import FetchOptions
from hpcresume.session.leaving import leave_block
from hpcresume.session.loop import Steps
from hpcresume.session.options import check_total, read_options
from hpcresume.session.part import remember_attempt
from hpcresume.session.signals import SignalWatch, signal_name
from hpcresume.session.streams import Batches, check_dataset, check_stream_options, refuse_options
from hpcresume.session.tracking import Tracked
from hpcresume.session.warnings_seen import WarningsSeen

__all__ = ["Session", "session", "session_of_run"]

_open: list[Session] = []
os.register_at_fork(after_in_child=_open.clear)  # a forked child holds no run and may open one of its own


def session(
    run: str | os.PathLike[str],
    *,
    every: str = "auto",
    keep: int = 3,
    comm: object = "auto",
    write_path: Literal["auto", "mpiio", "posix"] = "auto",
    read_back: Literal["all", "sample"] = "all",
    watchdog: str = "30min",
    reaction: float = 0.25,
    save_failures: int = 3,
    reopen: bool = False,
    signals: Iterable[str] = ("USR1", "USR2", "TERM", "HUP"),
) -> Session:
    """A training that is warned, saved on all ranks together, and resumed where it stopped.

    Args:
        run: the run's directory, on a filesystem that all nodes share; made if it is not there.
        every: how often to save: "20min", "500 steps", or "auto" (from what saves cost and how often the run was cut
            off); "auto, at most 20min" sets a limit.
        keep: how many generations to keep, the newest ones.
        comm: "auto", "mpi", "torch", "single", an mpi4py communicator, or a `Ranks`.
        write_path: how bulk data is written; "auto" probes the filesystem.
        read_back: how much of a generation is read back before it is committed: "all", or a "sample".
        watchdog: how long ranks wait for each other before the missing ones are named and the job ends;
            "off" for ever. A save or a restore is given longer, by its bytes.
        reaction: seconds that may pass until a warning is heard; 0 lets the ranks vote at every step.
        save_failures: how many saves in a row may fail; one more stops the run.
        reopen: go on with a run that is finished.
        signals: which signals are warnings.

    Raises:
        ConfigError: a value is wrong; the hint is the nearest valid one.
    """
    end_peers_on_uncaught_errors()
    return Session(
        run,
        every=every,
        keep=keep,
        comm=comm,
        write_path=write_path,
        read_back=read_back,
        watchdog=watchdog,
        reaction=reaction,
        save_failures=save_failures,
        reopen=reopen,
        signals=signals,
    )


def session_of_run(run: Path) -> bool:
    """Does an open session of this process have the run at this path?"""
    return any(each._attempt is not None and os.path.samefile(each._attempt.run.root, run) for each in _open)


class Session:
    """A context manager; made by `session`, which explains the options.

    Leaving the block: the attempt that finishes the run writes DONE and goes on after the block. Every other
    one raises: `Stopped` (a SystemExit: the state is committed and the job comes back), `RunFinished` or `RunHeld`
    on entry (a SystemExit: there is nothing to do), or the error that ended it.
    """

    def __init__(self, run: object, **options: Any) -> None:
        try:
            self._options = read_options(run, **options)
        except HpcresumeError as error:
            refuse_to_launcher(error, os.environ)
            raise
        self._tracked = Tracked()
        self._seen = WarningsSeen()
        self._watch: SignalWatch | None = None
        self._attempt: Attempt | None = None
        self._engine: Engine | None = None
        self._steps: Steps | None = None
        self._pid = os.getpid()

    def __enter__(self) -> Session:
        """Collective. Listen to signals, open the run, claim an attempt.

        Raises:
            SessionOpenError: another session is open in this process.
            UsageError: not in the main thread.
            RunFinished: the run is finished.
            RunHeld: Slurm started the job of a held run again by itself.
            RunError, RanksError: the run or the ranks cannot be used.
        """
        if _open:
            raise SessionOpenError(
                "a session is open in this process",
                where=str(_open[0]._options.run),
                hint="leave its with block first; one process trains one run at a time",
            )
        if self._attempt is not None:
            raise UsageError("a session cannot be opened twice", hint="make a new one with hr.session(...)")
        self._pid = os.getpid()
        foreign = self._arm()
        try:
            self._begin(foreign)
        except BaseException as error:
            if isinstance(error, HpcresumeError):
                refuse_to_launcher(error, os.environ)
            self._stop_watching()
            self._disarm()
            raise
        _open.append(self)
        return self

    def _begin(self, foreign: list[str]) -> None:
        self._attempt = attempt = open_attempt(self._options, os.environ)
        remember_attempt(attempt.paths, attempt.ranks.rank)
        attempt.fence.start()
        if self._watch is not None and attempt.progress is not None:
            self._watch.beat = attempt.progress.beat
        if self._watch is not None:
            self._watch.heard = partial(_note_end, attempt)
        self._engine = Engine(attempt, self._tracked, self._options, self._seen, self._watch)
        attempt.emit_once(Event("armed", {"signals": [s.name for s in self._options.signals]}))
        for text in foreign:
            attempt.emit(Event("foreign-handler", {"text": text}))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Collective unless an error ends it. Never swallows anything.

        Raises:
            Stopped: the loop was left by `break`, or user code caught the one that came before.
            HpcresumeError: the final state could not be saved.
        """
        if os.getpid() != self._pid:  # a forked child that leaves through the block: nothing here is its own
            return
        assert self._attempt is not None, "made in __enter__"
        assert self._engine is not None, "made in __enter__"
        try:
            leave_block(self._attempt, self._engine, self._steps, error)
        finally:
            self._stop_watching()
            self._tracked.close()
            self._disarm()
            _open.remove(self)

    def _stop_watching(self) -> None:
        """Nothing may end this process on account of a session that is over, however it came to its end."""
        if self._attempt is not None:
            self._attempt.stop_watching()

    def track(self, **objects: Any) -> None:
        """Track objects under names, before the loop: their state is saved, and restored when the loop begins.

        Anything with `state_dict` and `load_state_dict`, torch tensors and numpy arrays, `GlobalSlice` (this
        rank's block of a global array), dicts and lists of tensors, arrays and plain values are restored in
        place. Plain values are read and written as `s["name"]`. Wrap in `RankLocal` what belongs to one rank; it
        needs the same world size on restore.

        Raises:
            UntrackableError: an object of another kind, named.
            TrackingClosedError: the loop has begun.
            UsageError: a name is taken, or the session is not open.
        """
        self._opened()
        self._tracked.add(objects)

    def batches(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        name: str | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        **refused: object,
    ) -> Batches:
        """An endless stream of batches whose position is tracked; call `next` on it inside the loop.

        Sample k of the stream belongs to epoch e = k // n and is item `order[k % n]` of the data set, where
        `order = np.argsort(np.random.Philox(key=np.array([seed, e], np.uint64)).random_raw(n), kind="stable")`
        (with `shuffle=False`: in order). Global batch b is the next world_size × batch_size samples; rank r takes
        the contiguous part [r × batch_size, (r + 1) × batch_size) of it. Batches straddle epochs, so every
        sample comes exactly once an epoch and nothing is dropped or padded. After a resume the stream
        goes on with the first sample that no counting step was given, on any world size.

        Python's, numpy's and torch's generators are seeded anew for each sample, from `seed` and k, and are
        left as they were: augmentation is the same for any number of workers, and draws nothing from the
        training's own generators. (The seed is `hpcresume.policy.samples.sample_seed(seed, k)`; numpy
        takes its lower 32 bits.)

        Args:
            dataset: map-style: with `__len__` and `__getitem__`.
            batch_size: samples per rank and batch.
            shuffle: a new order in each epoch.
            seed: from 0 to 2**64 - 1; the order depends on it alone.
            name: in the state, if there are several streams.
            num_workers: as for torch's DataLoader, like all that follow. Without workers torch is needed
                only for its default `collate_fn`.
            collate_fn: makes a batch of a list of samples.
            pin_memory: copy batches into page-locked memory.
            prefetch_factor: batches that each worker prepares ahead; they do not count until handed out.
            timeout: seconds to wait for a worker; 0 for ever.
            worker_init_fn: called in each worker with its number.
            multiprocessing_context: "fork", "spawn" or "forkserver", or a context.
            refused: options of DataLoader that a resumable stream cannot have are explained.

        Raises:
            ConfigError: an option is wrong, or the data set has no length.
            TrackingClosedError: the loop has begun.
        """
        attempt = self._opened()
        refuse_options(refused)
        check_stream_options(batch_size, seed, num_workers)
        options = FetchOptions(
            num_workers=num_workers,
            collate_fn=collate_fn,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
            timeout=timeout,
            worker_init_fn=worker_init_fn,
            multiprocessing_context=multiprocessing_context,
            shielded=tuple(s for s in self._options.signals if s != signal.SIGINT),
        )
        stream = Batches(
            self._tracked.free_stream_name() if name is None else name,
            dataset,
            SampleOrder(check_dataset(dataset), seed, shuffle=shuffle),
            batch_size=batch_size,
            rank=attempt.ranks.rank,
            world_size=attempt.ranks.size,
            gate=self._check_in_loop,
            options=options,
        )
        self._tracked.add_stream(stream)
        return stream

    def steps(self, total_steps: int) -> Iterator[int]:
        """The loop: like `range(total_steps)`, but it starts where the last attempt stopped.

        Restores everything tracked when iteration begins, votes and saves between the steps, and raises
        `Stopped` out of the loop when the job has to go. The number of a step is how many were finished
        before it; generation, progress and metrics count finished steps, so they are one ahead inside it.

        Raises:
            ConfigError: `total_steps` is no whole number from 1, or fewer than are finished already.
            UsageError: there is a loop already.
        """
        attempt = self._opened()
        if self._steps is not None:
            raise UsageError("s.steps was called before", where="steps", hint="one loop a session")
        assert self._engine is not None, "made in __enter__"
        self._steps = Steps(self._engine, check_total(total_steps))
        unsteady = unsteady_buckets()
        if unsteady:
            say(attempt.ranks, unsteady)
        return self._steps

    def poll(self, *, collective: bool = False) -> bool:
        """For long phases inside a step (evaluation, compilation): is it time to be quick?

        `s.poll()` is not collective: True when this rank was warned, which others may not know yet.
        `s.poll(collective=True)` has to be called by all ranks at the same place; True on all of them when any
        was warned. Neither saves or stops: in the middle of a step the state is that of no step, and what is
        left of the step would never run. End the phase and let the step finish; the boundary after it
        saves and stops. What the phase skipped does not come again: put an evaluation whose result matters
        where it can be repeated, for instance behind a tracked value (`s["evaluated"]`).
        """
        self._opened()
        assert self._engine is not None, "made in __enter__"
        return self._engine.poll(collective=collective)

    def finish(self) -> None:
        """The run is finished with the step that is running. All ranks have to call it in the same step.

        Raises:
            UsageError: outside the loop.
        """
        self._check_in_loop("finish()")
        assert self._engine is not None, "made in __enter__"
        self._engine.finish_asked = True

    def log(self, **values: Any) -> None:
        """Record numbers of this step: rank 0's go into the attempt's metrics, others' are ignored.

        Raises:
            UntrackableError: a value is no int, float, or array or tensor of one element.
            UsageError: before the loop began.
        """
        attempt = self._opened()
        if self._steps is None or not self._steps.begun:
            raise UsageError("s.log needs a step to belong to", where="log", hint="call it inside the loop")
        if attempt.metrics is not None:
            attempt.metrics.log(self.step + self._steps.in_body, values)

    def __getitem__(self, name: str) -> Any:
        """A tracked plain value; once the loop has begun, since before that it is not restored.

        Raises:
            UsageError: before the loop began, or no value of this name.
        """
        if self._steps is None or not self._steps.begun:
            raise UsageError("values are restored when the loop begins", where=name, hint="read it inside the loop")
        return self._tracked.value(name)

    def __setitem__(self, name: str, value: Any) -> None:
        """Track a plain value (numbers, text, bytes, None, and dicts, lists, tuples of them), or change it."""
        self._opened()
        self._tracked.set_value(name, value)

    @property
    def step(self) -> int:
        """Finished steps: inside a step, its number."""
        return self._engine.step if self._engine is not None else 0

    @property
    def rank(self) -> int:
        """This rank, from 0."""
        return self._entered().ranks.rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self._entered().ranks.size

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._entered().number

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self._options.run

    @property
    def generation(self) -> str | None:
        """Name of the generation this attempt began from; None before the loop, or from nothing."""
        return self._engine.generation if self._engine is not None else None

    @property
    def micro_batches(self) -> int:
        """Into how many pieces to cut each batch of this rank, one after the other, with the gradients added up.

        1, until an attempt ends for want of memory and the job allows more (`hpcresume launch --micro-batches MOST`, or
        `requeue.max_micro_batches` in job.yaml): then twice as many in each further attempt. The same on all ranks.
        Weighted by their sizes the pieces give the gradient of the whole batch, but for rounding.
        """
        return self._options.micro_batches

    def _arm(self) -> list[str]:
        if not self._options.signals:
            return []
        self._watch = SignalWatch(self._options.signals, self._seen)
        return self._watch.arm()

    def _disarm(self) -> None:
        if self._watch is not None:
            self._watch.disarm()

    def _entered(self) -> Attempt:
        """The attempt, also after the block: `if s.rank == 0: save_final_model(model)`."""
        if self._attempt is None:
            hint = "with hr.session(...) as s:"
            raise UsageError("the session is not open yet", where=str(self._options.run), hint=hint)
        return self._attempt

    def _opened(self) -> Attempt:
        attempt = self._entered()
        if self not in _open:
            raise UsageError("the session is closed", where=str(self._options.run), hint="do it inside its block")
        return attempt

    def _check_in_loop(self, what: str) -> None:
        if self._steps is None or not self._steps.in_body:
            raise UsageError(
                f"{what} is possible only inside the loop over s.steps",
                where=str(self._options.run),
                hint="for step in s.steps(total_steps): ...",
            )


def _note_end(attempt: Attempt, number: int) -> None:
    """A signal that ends the job is recorded as it comes: in the midst of a save nobody may be left to say so later."""
    if number in ENDS_JOB:
        attempt.emit_once(Event("end-heard", {"signal": signal_name(number)}))
