"""What a path on the command line means: a run, or one generation of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpcresume.checkpoint.generations import Generations, committed_names
from hpcresume.errors import NoGenerationError
from hpcresume.io.paths import RunPaths, parse_generation_name

__all__ = ["Target", "resolve"]


@dataclass(frozen=True)
class Target:
    """A run, and the one generation of it that was named, if any."""

    run: RunPaths
    generation: str | None

    @property
    def generations(self) -> Generations:
        """The run's generations."""
        return Generations(self.run.root)

    def names(self) -> list[str]:
        """The generation that was named, or all that the run has committed, ascending."""
        return [self.generation] if self.generation else committed_names(self.run)


def resolve(path: Path | str) -> Target:
    """Find out what lies at `path`: RUN or RUN/generations/NAME.

    Raises:
        RunDirectoryError: there is no run.
        FormatVersionError: the run has another format version.
        NoGenerationError: the run has no generation of this name.
    """
    absolute = Path(os.path.abspath(path))
    named = absolute.parent.name == "generations" and parse_generation_name(absolute.name) is not None
    run = RunPaths(absolute.parent.parent if named else absolute)
    Generations(run.root)  # refuses what is no run
    if named and not absolute.is_dir():
        raise NoGenerationError(f"there is no generation {absolute.name}", where=str(run.root), hint="hpcresume ls RUN")
    return Target(run, absolute.name if named else None)
