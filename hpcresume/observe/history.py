"""What became of each attempt of a run: cause, steps, what was restored, what was lost, how long it took.

Built from the files of the attempts alone, while they are being written too. Which steps count is decided
here and nowhere else: the chain of start generations, followed backwards from the newest attempt that began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcresume.io.paths import RunPaths, parse_generation_name
from hpcresume.model import Cause, Skipped
from hpcresume.observe.facts import AttemptFacts, read_facts

__all__ = ["AttemptHistory", "RunHistory", "assemble", "read_history"]


@dataclass(frozen=True)
class AttemptHistory(AttemptFacts):
    """One attempt: its facts, and how much of its work counts.

    The attempt worked on the steps `start_step + 1 … end_step`; those up to `counted_to` count, the
    `lost_steps` after it were thrown away because a later attempt began from an older generation.
    `cause` is None while the attempt runs.
    """

    counted_to: int

    @property
    def lost_steps(self) -> int:
        """Steps that were worked and do not count."""
        return max(0, self.end_step - self.counted_to)

    def owns(self, step: int) -> bool:
        """Does the record of `step` that counts come from this attempt?"""
        return self.start_step < step <= self.counted_to


@dataclass(frozen=True)
class RunHistory:
    """All attempts, ascending, and whether the run is finished."""

    attempts: tuple[AttemptHistory, ...]
    done: bool

    @property
    def lost_steps(self) -> int:
        """Steps worked in vain, over all attempts."""
        return sum(attempt.lost_steps for attempt in self.attempts)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Generations that a restore found bad, each named once."""
        every = (skipped for attempt in self.attempts for skipped in attempt.skipped)
        return tuple(dict.fromkeys(every))

    def owner(self, step: int) -> int | None:
        """Number of the attempt whose work on `step` counts, or None when no attempt's does."""
        return next((a.attempt for a in self.attempts if a.owns(step)), None)


def read_history(run: RunPaths) -> RunHistory:
    """Read the files of every attempt.

    Raises:
        OSError: a file is there and cannot be read.
    """
    facts = [read_facts(run, number) for number in run.attempt_numbers()]
    return assemble(facts, done=run.done.exists())


def assemble(facts: Sequence[AttemptFacts], *, done: bool) -> RunHistory:
    """Pure: from the facts of each attempt (ascending) to the history of the run."""
    counted = _counted_steps(facts, done)
    attempts = []
    for each in facts:
        values = {**vars(each), "cause": _cause(each, newest=each is facts[-1], done=done)}
        attempts.append(AttemptHistory(**values, counted_to=counted[each.attempt]))
    return RunHistory(tuple(attempts), done)


def _cause(facts: AttemptFacts, *, newest: bool, done: bool) -> Cause | None:
    if facts.cause is not None:
        return facts.cause
    if newest:
        return Cause.DONE if done else None
    return Cause.UNKNOWN


def _counted_steps(facts: Sequence[AttemptFacts], done: bool) -> dict[int, int]:
    """Last step that counts, by attempt: follow the start generations back from the newest claim.

    An attempt that has claimed but not yet chosen where to start says nothing about the others, so the
    chain begins at the newest attempt that did.
    """
    counted = {each.attempt: each.start_step for each in facts}
    by_number = {each.attempt: each for each in facts}
    begun = [each for each in facts if each.has_begun]
    if not begun:
        return counted
    current = begun[-1]
    counted[current.attempt] = _newest_counts(current, done)
    while (owner := _made_by(current)) in by_number:
        counted[owner] = current.start_step
        current = by_number[owner]
    return counted


def _newest_counts(newest: AttemptFacts, done: bool) -> int:
    """While it runs, everything counts; once ended without finishing, what it committed does."""
    if done or newest.cause in (None, Cause.DONE):
        return newest.end_step
    return max([newest.start_step, *newest.committed_steps])


def _made_by(facts: AttemptFacts) -> int:
    """The attempt that committed the generation it started from; 0 for none (or a record that cannot be)."""
    parsed = parse_generation_name(facts.restored_from) if facts.restored_from else None
    return parsed[1] if parsed and parsed[1] < facts.attempt else 0
