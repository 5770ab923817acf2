"""Saving, and what failed saves mean. Owns the count of failures in a row and what a save costs.

A failed save never kills a healthy training: it is reported, counted and tried again; past the budget the run
stops loudly. Decides nothing about when.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

import numpy as np

from hpcresume.checkpoint import tree
from hpcresume.checkpoint.retire import make_room, retire, sweep
from hpcresume.checkpoint.save import SaveOptions, save_generation
from hpcresume.comm.vote import agree_bytes
from hpcresume.errors import CheckpointError, FencedError, HpcresumeError, NoSpaceError, StateError
from hpcresume.model import Decision, Event, Generation
from hpcresume.policy.deadline import patience
from hpcresume.session.attempt import Attempt, say
from hpcresume.session.options import Options
from hpcresume.session.tracking import Tracked

__all__ = ["BEARABLE", "Saver"]

BEARABLE: Final = (CheckpointError, StateError)
"""What a save may raise without ending the training (on all ranks alike, by vote)."""
RECENT: Final = 5
"""Saves by whose median "auto" goes: one slow one among them changes nothing."""


class Saver:
    """Saves the tracked state of one attempt.

    Attributes:
        generation: name of the newest committed generation, or None.
        step: the step of that generation, or the step the attempt began with.
        failures: saves that failed since the last one that did not.
        seconds: what the last full save took, None before the first.
        recent: what the last few full saves took.
        longest_step: the longest time between two step boundaries that is not told yet, None without any.
        tried_step, tried_at: the last save, whatever became of it; seconds of `time.monotonic`.
    """

    def __init__(self, attempt: Attempt, tracked: Tracked, options: Options) -> None:
        self._attempt = attempt
        self._tracked = tracked
        self._options = options
        self.generation: str | None = None
        self.step = 0
        self.failures = 0
        self._told_of_drift = False
        self._left_behind = False
        self.seconds: float | None = None
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.longest_step: float | None = None
        self.tried_step = 0
        self.tried_at = time.monotonic()

    def begin_at(self, step: int, generation: str | None) -> None:
        """The attempt starts from `generation`."""
        self.generation, self.step, self.tried_step = generation, step, step
        self.tried_at = time.monotonic()

    def holds(self, step: int) -> bool:
        """Is the state after `step` steps in the newest generation?"""
        return self.generation is not None and self.step == step

    def save(self, step: int, total: int, *, read_back: str | None = None) -> Generation:
        """Collective. Commit the state after `step` steps.

        Raises:
            SaveError, StateError: nothing was committed; on all ranks alike.
        """
        attempt = self._attempt
        attempt.emit_once(Event("save-begin", {"step": step}))
        began = time.monotonic()
        try:
            generation = self._write_in_the_room_there_is(step, total, read_back or self._options.read_back)
        except HpcresumeError as error:
            self._note_failure(step, error)
            raise
        finally:
            self.tried_step, self.tried_at = step, time.monotonic()
        self._note_success(generation, time.monotonic() - began)
        return generation

    def retire_old(self) -> None:
        """Rank 0: after a commit, make room. What cannot be removed is only reported."""
        if self._attempt.ranks.rank == 0:
            try:
                attempt = self._attempt
                if self._left_behind:  # by saves of this attempt that failed: none is under way now
                    sweep(attempt.run, attempt=attempt.number + 1, emit=attempt.emit)
                    self._left_behind = False
                retire(attempt.run, keep=self._options.keep, attempt=attempt.number, emit=attempt.emit)
            except OSError as error:
                self._attempt.emit(Event("retire-failed", {"error": str(error)}))

    def give_up_if_hopeless(self, error: HpcresumeError, *, at_once: bool = False) -> None:
        """Raise `error` when the budget of failures is spent, which holds the run, or when we are fenced off.

        Raises:
            HpcresumeError: `error`.
        """
        fenced = isinstance(error, FencedError)
        if not (fenced or at_once or self.failures > self._options.save_failures):
            return
        reason = "a newer attempt of the run has begun" if fenced else f"{self.failures} saves in a row failed"
        hint = None if fenced else "storage"
        # A newer attempt is at work: nothing of this one's may hold the run, or the job that both are starts of.
        decision = Decision.COME_BACK if fenced else Decision.HOLD
        self._attempt.decide(
            decision, f"{reason}: {error}", step=self.step, generation=self.generation, cause_hint=hint
        )
        say(self._attempt.ranks, f"stopping, {reason}; the newest generation is {self.generation}")
        raise error

    def _write_in_the_room_there_is(self, step: int, total: int, read_back: str) -> Generation:
        """Collective. On a full filesystem once more, if what is kept beyond `keep` makes room: it is pruned after
        commits only, so a run that was told to keep less would never come to it.
        """
        try:
            return self._write(step, total, read_back)
        except NoSpaceError:
            with self._attempt.watchdog.guard(f"save step {step}"):
                self._attempt.ranks.barrier()
                made = agree_bytes(self._attempt.ranks, self._make_room())
            if not made:
                raise
        return self._write(step, total, read_back)

    def _make_room(self) -> bytes:
        """Rank 0: what was removed, in words; empty when nothing was."""
        attempt = self._attempt
        if attempt.ranks.rank != 0:
            return b""
        try:
            removed = make_room(attempt.run, keep=self._options.keep, attempt=attempt.number, emit=attempt.emit)
        except OSError as error:
            attempt.emit(Event("retire-failed", {"error": str(error)}))
            return b""
        if removed:
            attempt.emit(Event("made-room", {"removed": removed}))
            say(attempt.ranks, f"no space left: removed {', '.join(removed)}, which keep={self._options.keep} gives up")
        return " ".join(removed).encode()

    def _write(self, step: int, total: int, read_back: str) -> Generation:
        attempt = self._attempt
        state: Any = self._tracked.state(step, total)
        name = f"save step {step}"
        own = sum(leaf.nbytes for leaf in tree.flatten(state)[1])
        with attempt.watchdog.guard(name):
            most = int(attempt.ranks.allreduce_max(np.array([own]))[0])
        with attempt.watchdog.guard(name, patience(self._options.watchdog, most)):
            return save_generation(
                attempt.run,
                state,
                step=step,
                attempt=attempt.number,
                parent=self.generation,
                ranks=attempt.ranks,
                options=SaveOptions(self._options.write_path, read_back),
                emit=self._emit,
            )

    def _emit(self, event: Event) -> None:
        """What every rank notices alike goes to rank 0's ledger. Copies that drift apart are told to people too."""
        self._attempt.emit_once(event)
        if event.name == "replicas-differ" and not self._told_of_drift:
            self._told_of_drift = True
            say(
                self._attempt.ranks,
                f"{event.fields['count']} values differ between ranks ({event.fields['paths'][0]} …): they are kept "
                "for each rank, and fit this number of ranks only; wrap them in hr.RankLocal if that is meant",
            )

    def _note_success(self, generation: Generation, seconds: float) -> None:
        self.failures = 0
        self.generation, self.step = generation.name, generation.step
        if generation.read_back != "none":
            self.seconds = seconds
            self.recent.append(seconds)
        fields = {
            "generation": generation.name,
            "step": generation.step,
            "seconds": seconds,
            "bytes": generation.nbytes,
            "write_path": generation.write_path,
            "read_back": generation.read_back,
            "longest_step": self.longest_step,
        }
        self.longest_step = None
        self._attempt.emit_once(Event("saved", fields))
        self._attempt.sync()
        say(self._attempt.ranks, f"saved {generation.name} in {seconds:.2f} s")

    def _note_failure(self, step: int, error: HpcresumeError) -> None:
        self.failures += 1
        self._left_behind = True
        fields = {"step": step, "error": str(error), "type": type(error).__name__, "failures": self.failures}
        self._attempt.emit_once(Event("save-failed", fields))
        say(self._attempt.ranks, f"save {self.failures} failed at step {step}: {error}")
