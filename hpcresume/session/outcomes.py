"""How a session leaves the loop: two exits that are no errors. Knows nothing of how they come about."""

from __future__ import annotations

from collections.abc import Mapping

from hpcresume.model import EXIT_COME_BACK, EXIT_DONE

__all__ = ["RunFinished", "Stopped", "exit_code_of_a_stop"]


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


def exit_code_of_a_stop(environ: Mapping[str, str]) -> int:
    """75, or 0 under a supervisor: mpiexec and srun -K treat the first rank that exits otherwise as a crash."""
    return EXIT_DONE if environ.get("HPCRESUME_SUPERVISED") == "1" else EXIT_COME_BACK
