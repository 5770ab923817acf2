"""How a session leaves the loop: three exits that are no errors. Knows nothing of how they come about."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpcresume.model import EXIT_COME_BACK, EXIT_DONE, EXIT_HOLD

__all__ = ["RunFinished", "RunHeld", "Stopped", "exit_code_of_a_stop"]

last_words: Callable[[BaseException], None] | None = None
"""Called with an exception that is about to end this process together with its peers. Whoever called the user's
code and wants to know of it (submitit, which stores exceptions) sets this, since nothing is ever returned to it."""


class Stopped(SystemExit):
    """The state is committed and the job comes back later.

    A SystemExit, so that `except Exception` does not catch it and the process ends with `code`: 75, or 0
    under a supervisor, which reads the decision from its file.

    Attributes:
        step: finished steps.
        generation: name of the newest committed generation, or None when there is none.
        reason: why, in words.
    """

    def __init__(self, code: int, *, step: int, generation: str | None, reason: str) -> None:
        super().__init__(code)
        self.step = step
        self.generation = generation
        self.reason = reason


class RunFinished(SystemExit):
    """The run was finished by an earlier attempt: there is nothing to do. Its code is 0."""

    def __init__(self) -> None:
        super().__init__(EXIT_DONE)


class RunHeld(SystemExit):
    """The last attempt was held, and Slurm started its job again by itself: since 24.05 it does so after any exit in
    the grace of a preemption. Its code is 77, or 0 under a supervisor.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(EXIT_DONE if environ.get("HPCRESUME_SUPERVISED") == "1" else EXIT_HOLD)


def exit_code_of_a_stop(environ: Mapping[str, str]) -> int:
    """75, or 0 under a supervisor: mpiexec and srun -K treat the first rank that exits otherwise as a crash."""
    return EXIT_DONE if environ.get("HPCRESUME_SUPERVISED") == "1" else EXIT_COME_BACK
