"""Asking Slurm seldom, for who looks often: between two questions the last answer stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hpcresume.errors import SlurmError
from hpcresume.slurm.queue import QueuedJob

__all__ = ["SOON", "AskQueue", "Seldom"]

SOON = 3.0
"""Seconds until the next question where something has happened, or is to be looked at again."""

AskQueue = Callable[[Iterable[str]], Mapping[str, QueuedJob]]


@dataclass
class Seldom:
    """Called as `slurm.queue.ask_queue` is.

    Attributes:
        ask: the real question.
        every: the least number of seconds between two.
        clock: seconds.
        questions: how many were asked.
        error: why the last one got no answer.
    """

    ask: AskQueue
    every: float
    clock: Callable[[], float]
    questions: int = 0
    error: SlurmError | None = None
    _asked_at: float = float("-inf")
    _answer: Mapping[str, QueuedJob] = field(default_factory=dict)

    def __call__(self, job_ids: Iterable[str]) -> Mapping[str, QueuedJob]:
        """Slurm's answer, or the last one while that is fresh enough.

        Raises:
            SlurmError: the last question got no answer.
        """
        if self.clock() - self._asked_at >= self.every:
            self._asked_at = self.clock()
            self.questions += 1
            try:
                self._answer, self.error = self.ask(job_ids), None
            except SlurmError as error:
                self.error = error
        if self.error is not None:
            raise self.error
        return self._answer

    def soon(self) -> None:
        """Let the next question come soon."""
        self._asked_at = min(self._asked_at, self.clock() - self.every + SOON)
