"""The iterator behind `s.steps`: begins the loop, and asks the engine what to do between two steps."""

from __future__ import annotations

from collections.abc import Iterator

from hpcresume.session.engine import Engine

__all__ = ["Steps"]


class Steps(Iterator[int]):
    """The numbers of the steps that this attempt runs.

    Attributes:
        begun: everything is restored.
        in_body: a step is running.
    """

    def __init__(self, engine: Engine, total: int) -> None:
        self._engine = engine
        self._total = total
        self.begun = False
        self.in_body = False

    def __next__(self) -> int:
        engine = self._engine
        if engine.stop is not None:
            raise engine.stop
        if self.in_body:
            self.in_body = False
            more = engine.boundary()
        elif self.begun:
            raise StopIteration
        else:
            more = engine.begin(self._total)
            self.begun = True
        if not more:
            raise StopIteration
        self.in_body = True
        return engine.step
