"""The loop as all ranks run it: restore, vote at step boundaries, save, stop together.

Every method that says so is collective and happens on all ranks at the same step. Knows no signal handler
(it reads what was noted) and no user code.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcresume.checkpoint import tree
from hpcresume.checkpoint.inventory import take_inventory
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.probe import choose_writer
from hpcresume.checkpoint.restore import Restored, restore_newest
from hpcresume.comm.vote import vote
from hpcresume.errors import ConfigError, HpcresumeError, RankStructureError, StateError, StorageAwayError
from hpcresume.model import Cause, Decision, Event, EveryRank, ignore_events
from hpcresume.policy import deadline
from hpcresume.policy.cadence import next_cadence_step
from hpcresume.policy.deadline import Plan, TimeLeft, patience
from hpcresume.policy.votes import steps_until_next_vote
from hpcresume.session import rng
from hpcresume.session.attempt import Attempt, facts_of, say
from hpcresume.session.fence import fenced
from hpcresume.session.options import Options
from hpcresume.session.outcomes import Stopped, exit_code_of_a_stop
from hpcresume.session.rhythm import Rhythm
from hpcresume.session.saver import BEARABLE, Saver
from hpcresume.session.signals import SignalWatch, signal_name
from hpcresume.session.tracking import Tracked
from hpcresume.session.voting import Ballot, Outcome, Place, cast
from hpcresume.session.warnings_seen import WarningsSeen

__all__ = ["Engine"]

TRIES_WHEN_WARNED: Final = 3
"""Saves tried after a warning, at once after each other, as long as the deadline allows."""

NEAR_THE_LIMIT: Final = 15 * 60.0
"""Seconds before the time limit within which a warning that nobody explains is taken for the limit's own."""

PAUSE: Final = 1.0
"""Seconds between tries of the final save, doubled each time: there is no training to go on with meanwhile."""


class Engine:
    """One attempt at work.

    Attributes:
        step: finished steps.
        total: steps in the whole run.
        generation: what was restored at the beginning, None when the run began from nothing.
        finish_asked: `s.finish()` was called in this step.
        finished: the final state is committed.
        stop: the exception that leaves the loop, once the state is committed.
        agreed: an error that every rank raises alike, so that nobody has to be aborted.
    """

    def __init__(
        self, attempt: Attempt, tracked: Tracked, options: Options, seen: WarningsSeen, watch: SignalWatch | None
    ) -> None:
        self._attempt = attempt
        self._tracked = tracked
        self._options = options
        self._seen = seen
        self._watch = watch
        self._ranks = attempt.ranks
        self._progress = attempt.progress
        self._saver = Saver(attempt, tracked, options)
        self._rhythm = Rhythm(options.every, attempt.emit)
        self._step_began: float | None = None
        self._next_vote = 0
        self._gap = 1
        self._voted_at = 0.0
        self._voted_step = 0
        self._warned = False
        self._why = ""
        self.step = 0
        self.total = 0
        self.generation: str | None = None
        self.finish_asked = False
        self.finished = False
        self.stop: Stopped | None = None
        self.agreed: HpcresumeError | None = None

    @property
    def newest(self) -> str | None:
        """Name of the newest committed generation that this attempt knows of."""
        return self._saver.generation

    def begin(self, total: int) -> bool:
        """Collective. Restore, and hear what came meanwhile. False: there is no step left to run.

        Raises:
            HpcresumeError: on all ranks alike: nothing usable to restore, or it does not fit.
            Stopped: a warning came before the first step.
        """
        self.total = total
        self._tracked.closed = True
        try:
            saved = self._restore()
            self._prepare_to_save()
        except HpcresumeError as error:
            self.agreed = error
            # What the storage holds nobody knows until it answers, and that it does by itself some time.
            what = Decision.COME_BACK if isinstance(error, StorageAwayError) else Decision.HOLD
            self._attempt.decide(what, f"could not begin: {error}", step=self.step, **facts_of(error))
            raise
        self._next_vote = self.step
        self._saver.begin_at(self.step, self.generation)
        self._voted_at, self._voted_step = time.monotonic(), self.step
        if self._ranks.rank == 0:
            self._rhythm.begin(self._attempt.run, self._attempt.number, self._voted_at)
        if not self._meet(Place.FINISH if self.step == total else Place.BOUNDARY):
            return False
        if saved is not None:
            self._restore_generators(saved)
        return True

    def boundary(self) -> bool:
        """A step is finished. False: it was the last one. Collective where a vote is due.

        Raises:
            Stopped: somebody was warned, and the state is committed.
            HpcresumeError: on all ranks alike: saving failed too often.
        """
        self.step += 1
        if self._progress is not None:
            self._progress.write(self.step)
        self._time_the_step()
        if self.step < self._next_vote and not self.finish_asked:
            return True
        goes_on = self._meet(Place.FINISH if self.finish_asked or self.step == self.total else Place.BOUNDARY)
        self._step_began = time.monotonic()  # what a save took is no part of a step
        return goes_on

    def _time_the_step(self) -> None:
        """A warning waits for the end of a step, so the longest one counts. The first one compiles, and is left out."""
        now, saver = time.monotonic(), self._saver
        if self._step_began is not None:
            saver.longest_step = max(saver.longest_step or 0.0, now - self._step_began)
        self._step_began = now

    def leave_loop(self) -> None:
        """Collective. The loop was left by `break`: the step it happened in counts as finished.

        Raises:
            Stopped: the state is committed and the run comes back, unless `finish` was called.
        """
        self.step += 1
        if self._progress is not None:
            self._progress.write(self.step)
        done = self.finish_asked or self.step == self.total
        if self._meet(Place.FINISH if done else Place.BREAK):
            self._save_for_sure()
            self._stop("the loop was left by break, without finish()", None)

    def poll(self, *, collective: bool) -> bool:
        """Was this rank warned; or, collectively, was any."""
        if collective and not self._warned:
            outcome = self._vote(Place.POLL, save=False, gap=0)
            if outcome.signal:
                self._hear(outcome)
                self._next_vote = self.step + 1
        return self._warned or bool(self._seen)

    def _meet(self, place: Place) -> bool:
        """Vote and do what was decided. False: the run is finished."""
        outcome = self._vote(place, *self._orders(place))
        if outcome.signal and not self._warned:
            self._hear(outcome)
        if place is Place.FINISH:
            return not self._finish()
        if self._warned:
            self._stop_when_warned()
        if outcome.save:
            self._save_by_cadence()
        self._next_vote = self.step + outcome.gap
        self._voted_at, self._voted_step, self._gap = time.monotonic(), self.step, outcome.gap
        return True

    def _vote(self, place: Place, save: bool, gap: int) -> Outcome:
        if self._watch is not None:
            for text in self._watch.check():
                self._attempt.emit(Event("foreign-handler", {"text": text}))
        warned = self._seen.first
        overtaken = self._attempt.fence.overtaken
        ballot = Ballot(place, self.step, warned.signal if warned else 0, self._seen.arrivals, save, gap, overtaken)
        try:
            with self._attempt.watchdog.guard("vote"):
                outcome = cast(self._ranks, ballot)
            if outcome.overtaken:
                self._saver.give_up_if_hopeless(fenced(self._attempt.number))
        except HpcresumeError as error:
            self.agreed = error
            raise
        return outcome

    def _orders(self, place: Place) -> tuple[bool, int]:
        """What rank 0 wants: a save now, and so many steps until the next vote."""
        if self._ranks.rank != 0:
            return False, 0
        now, saver = time.monotonic(), self._saver
        save = place is Place.BOUNDARY and self._rhythm.wants_save(self.step, saver, now)
        steps = self.step - self._voted_step
        gap = steps_until_next_vote(
            previous=self._gap,
            step=self.step,
            total=self.total,
            step_seconds=(now - self._voted_at) / steps if steps else None,
            reaction=self._options.reaction,
            forced=next_cadence_step(self._options.every, self.step),
        )
        return save, gap

    def _hear(self, outcome: Outcome) -> None:
        self._warned = True
        name = signal_name(outcome.signal)
        self._why = f"warned by {name}"
        fields = {"signal": name, "rank": outcome.warned_rank, "arrivals": outcome.arrivals, "step": self.step}
        heard = [signal_name(number) for number in self._seen.numbers]
        self._attempt.emit_once(Event("warning", fields | {"heard": heard}))
        say(self._ranks, f"{self._why} at step {self.step}")

    def _save_by_cadence(self) -> None:
        try:
            self._saver.save(self.step, self.total)
        except BEARABLE as error:
            self._give_up_if_hopeless(error)
        else:
            self._saver.retire_old()

    def _save_for_sure(self, read_back: str | None = None) -> None:
        """Collective. Commit this step, trying again as often as the budget of failures allows."""
        pause = PAUSE
        while not self._saver.holds(self.step):
            try:
                self._saver.save(self.step, self.total, read_back=read_back)
            except BEARABLE as error:
                self._give_up_if_hopeless(error)
                time.sleep(pause)
                pause *= 2

    def _give_up_if_hopeless(self, error: HpcresumeError) -> None:
        try:
            self._saver.give_up_if_hopeless(error)
        except HpcresumeError as raised:
            self.agreed = raised
            raise

    def _stop_when_warned(self) -> None:
        """Collective. Save as the time left allows, and leave. A further warning changes nothing."""
        why, cause = self._why, None
        for _ in range(TRIES_WHEN_WARNED):
            plan, cause = self._agree_on_plan()
            if plan is Plan.KEEP_LAST:
                if not self._saver.holds(self.step):
                    why = f"{self._why}, with too little time left for a save"
                break
            try:
                self._saver.save(
                    self.step, self.total, read_back="none" if plan is Plan.SAVE_WITHOUT_READ_BACK else None
                )
            except BEARABLE as error:
                self._give_up_if_hopeless(error)
                why = f"{self._why}, and the save failed: {error.what}"
            else:
                why = self._why
                break
        self._stop(why, cause)

    def _agree_on_plan(self) -> tuple[Plan, str | None]:
        """Collective. Rank 0 looks at the deadline and tells the others what to do."""
        message = b""
        if self._ranks.rank == 0:
            remaining, cause = self._deadline()
            plan = deadline.choose(TimeLeft(remaining, self._saver.seconds, self._saver.holds(self.step)))
            message = json.dumps([plan.value, cause]).encode()
            self._attempt.emit(Event("plan", {"plan": plan.value, "remaining": remaining, "cause": cause}))
        with self._attempt.watchdog.guard("agree on the deadline"):
            self._ranks.barrier()
            chosen, cause = json.loads(self._ranks.broadcast(message))
        return Plan(chosen), cause

    def _deadline(self) -> tuple[float | None, str | None]:
        """Seconds left and the cause, as far as the supervisor or the job's time limit tell."""
        try:
            facts = json.loads(self._attempt.paths.deadline.read_bytes())
            return float(facts["unix"]) - time.time(), _cause(facts.get("cause"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            end = self._attempt.slurm.end_time
            if end is None:
                return None, None
            near = end - time.time() < NEAR_THE_LIMIT
            return end - time.time(), (Cause.WALLTIME if near else Cause.PREEMPTED).value

    def _stop(self, why: str, cause: str | None) -> None:
        """Rank 0 writes the decision; everybody leaves.

        Raises:
            Stopped: always.
        """
        saver, attempt = self._saver, self._attempt
        attempt.emit_once(Event("stop", {"step": self.step, "why": why, "generation": saver.generation}))
        attempt.decide(Decision.COME_BACK, why, step=saver.step, generation=saver.generation, cause_hint=cause)
        say(self._ranks, f"stopped at step {self.step} ({why}); comes back from {saver.generation or 'the start'}")
        code = exit_code_of_a_stop(attempt.environ)
        self.stop = Stopped(code, step=self.step, generation=saver.generation, reason=why)
        raise self.stop

    def _finish(self) -> bool:
        """Collective. Commit the final state."""
        read_back = None
        if self._warned and not self._saver.holds(self.step):
            plan, cause = self._agree_on_plan()
            if plan is Plan.KEEP_LAST:
                self._stop(f"{self._why}, with too little time left for the final save", cause)
            read_back = "none" if plan is Plan.SAVE_WITHOUT_READ_BACK else None
        self._save_for_sure(read_back)
        self._saver.retire_old()
        self._attempt.emit_once(Event("finished", {"step": self.step, "generation": self._saver.generation}))
        self.finished = True
        return True

    def _restore(self) -> Any:
        """Collective. Load the newest generation into the tracked objects; return the generators' state."""
        attempt, began = self._attempt, time.monotonic()
        self._agree_on_what_is_tracked()
        with attempt.watchdog.guard("restore"):
            nbytes = self._bytes_to_restore()
        with attempt.watchdog.guard("restore", patience(attempt.watchdog.timeout, nbytes)):
            restored = restore_newest(
                attempt.run,
                attempt=attempt.number,
                ranks=self._ranks,
                slices=self._tracked.slices(),
                emit=self._emit_of_restore,
            )
            if restored.generation is None:
                attempt.emit_once(Event("fresh-start", {"world_size": self._ranks.size, "total_steps": self.total}))
                return None
            self._put_back(restored)
        self._report_restored(restored, time.monotonic() - began)
        return restored.state["rng"]

    def _bytes_to_restore(self) -> int:
        """Collective. About as much as any rank may have to read: its share of every generation, to prove it, and its
        own part of one. An optimizer that is not restored yet will be twice its model.
        """
        files = [*self._attempt.run.generations.glob("g*/*.h5")]
        share = sum(_size(path) for path in files) // self._ranks.size
        own = sum(leaf.nbytes for leaf in tree.flatten(self._tracked.state(0, self.total))[1])
        return int(self._ranks.allreduce_max(np.array([share + 3 * own]))[0])

    def _emit_of_restore(self, event: Event) -> None:
        """A disk that reads differently twice is known only to the rank that read; all else is the same on all."""
        emit = self._attempt.emit if event.name == "unconfirmed-mismatch" else self._attempt.emit_once
        emit(event)

    def _agree_on_what_is_tracked(self) -> None:
        """Collective. The same things on all ranks, all of them such as can be saved."""
        with self._attempt.watchdog.guard("begin"):
            mine = {**self._tracked.describe(), "total_steps": self.total}
            texts = self._ranks.allgather(json.dumps(mine, sort_keys=True).encode())
            self._compare_descriptions(texts)
            with together(self._ranks, "look at what is tracked", StateError):
                state = self._tracked.state(0, self.total)
            take_inventory(state, self._ranks, ignore_events, compare_replicas=False)

    def _compare_descriptions(self, texts: list[bytes]) -> None:
        odd = next((rank for rank, text in enumerate(texts) if text != texts[0]), None)
        if odd is not None:
            first, other = json.loads(texts[0]), json.loads(texts[odd])
            key = next(key for key in first if first[key] != other[key])
            raise RankStructureError(
                f"rank 0 has {key} {first[key]}, rank {odd} has {other[key]}",
                where=f"rank {odd}",
                hint="track the same names with the same options on every rank",
            )

    def _prepare_to_save(self) -> None:
        """Collective. Probe the filesystem and load HDF5 now, and not first in the seconds after a warning."""
        attempt = self._attempt
        with attempt.watchdog.guard("probe"):
            self._ranks.barrier()
            choose_writer(attempt.run.generations, self._options.write_path, self._ranks, attempt.emit_once)
        if self._ranks.rank == 0:
            importlib.import_module("hpcresume.checkpoint.skeleton")

    def _put_back(self, restored: Restored) -> None:
        generation = restored.generation
        assert generation is not None, "only a restored state can be put back"
        failed: Exception | None = None
        try:
            self._tracked.restore(restored.state, generation.name)
        except HpcresumeError as error:
            failed = error
        vote(self._ranks, "restore", failed)
        self.step, self.generation = generation.step, generation.name
        if self.step > self.total:
            raise ConfigError(
                f"the run has {self.step} finished steps already, more than the {self.total} asked for",
                where="total_steps",
                hint=f"total_steps={self.step} or more, or roll back to an older generation",
            )

    def _report_restored(self, restored: Restored, seconds: float) -> None:
        generation = restored.generation
        assert generation is not None, "reported only when there is one"
        fields = {
            "generation": generation.name,
            "step": generation.step,
            "total_steps": self.total,
            "skipped": [vars(each) for each in restored.skipped],
            "seconds": seconds,
            "world_size_changed": generation.world_size != self._ranks.size,
        }
        self._attempt.emit_once(Event("restored", fields))
        if self._progress is not None:
            self._progress.write(self.step)
        text = f"attempt {self._attempt.number}: restored {generation.name} in {seconds:.2f} s"
        if generation.world_size != self._ranks.size:
            text += f"; saved by {generation.world_size} ranks and now on {self._ranks.size}: random numbers differ"
        for each in restored.skipped:
            text += f"; {each.generation} was skipped: {each.reason}"
        say(self._ranks, text)

    def _restore_generators(self, saved: Any) -> None:
        """The very last thing before the first step's body: anything later could draw a number."""
        if not isinstance(saved, EveryRank):
            for text in rng.restore(saved):
                self._attempt.emit(Event("rng-not-restored", {"text": text}))
            return
        size = self._ranks.size
        self._attempt.emit_once(Event("rng-derived", {"from_world_size": len(saved), "world_size": size}))
        rng.seed_all(rng.derive(saved[0], step=self.step, rank=self._ranks.rank, world_size=size))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _cause(value: object) -> str | None:
    """The cause that the supervisor named, if it is one."""
    return value if isinstance(value, str) and value in {cause.value for cause in Cause} else None
