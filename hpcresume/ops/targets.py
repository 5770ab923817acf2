"""What a path on the command line means: a run, or one generation of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcresume.checkpoint.generations import Generations, committed_names
from hpcresume.checkpoint.places import read_place
from hpcresume.checkpoint.run import check_generations
from hpcresume.errors import NoGenerationError, RunDirectoryError
from hpcresume.io.hints import hint_for
from hpcresume.io.paths import RunPaths
from hpcresume.ops.chain_record import is_chain, stages_at

__all__ = ["Target", "refuse_chain", "resolve", "typed"]


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
        ConfigError: the path is empty.
        RunDirectoryError: there is no run, it cannot be read, or it has lost its directory of generations.
        FormatVersionError: the run has another format version.
        NoGenerationError: the run has no generation of this name.
    """
    run, name = read_place(path)
    refuse_chain(run)
    Generations(run.root)  # refuses what is no run
    if name is not None and not (run.generations / name).is_dir():
        raise NoGenerationError(f"there is no generation {name}", where=str(run.root), hint="hpcresume ls RUN")
    if name is None:
        with typed(run):
            check_generations(run)
            committed_names(run)
    return Target(run, name)


def refuse_chain(run: RunPaths) -> None:
    """For what is done with one run alone.

    Raises:
        RunDirectoryError: stages lie here, each of which is a run of its own; or it may not be read.
    """
    with typed(run):
        stages = stages_at(run.root) if is_chain(run.root) else []
    if stages:
        names = ", ".join(each.name for each in stages)
        what = f"there is no run here but a chain of stages: {names}"
        raise RunDirectoryError(what, where=str(run.root), hint=str(stages[-1]))


@contextlib.contextmanager
def typed(run: RunPaths) -> Iterator[None]:
    """What the operating system says of a run directory, as an error of ours.

    Raises:
        RunDirectoryError: something in it cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"the run cannot be read: {error.strerror or error}",
            where=str(error.filename or run.root),
            hint=hint_for(error.errno, otherwise="look at the filesystem"),
        ) from error
