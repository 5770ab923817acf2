"""What `hpcresume submit` left of a chain of stages: which there are, in which order, where their runs lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.config.job import Stage
from hpcresume.errors import RunDirectoryError
from hpcresume.io.paths import RunPaths
from hpcresume.observe.lines import read_json_object
from hpcresume.submit.record import Folder
from hpcresume.submit.stages import read_stages

__all__ = ["Chain", "chain_of_stage", "is_chain", "read_chain", "stages_at"]


@dataclass(frozen=True)
class Chain:
    """Stages that were submitted together.

    Attributes:
        root: the folder with the runs of the stages: RUN/NAME.
        stages: them, each behind those that it waits for.
        directory: where they were submitted from.
        options: further options for sbatch, for each of them.
    """

    root: Path
    stages: tuple[Stage, ...]
    directory: Path | None
    options: tuple[str, ...] = ()

    def run_of(self, name: str) -> Path:
        """The run of a stage."""
        return self.root / name

    @property
    def runs(self) -> list[Path]:
        """The runs of all stages, in order."""
        return [self.run_of(stage.name) for stage in self.stages]

    def not_done(self, names: Iterable[str]) -> list[str]:
        """Those of these stages whose runs are not finished."""
        return [name for name in names if not RunPaths(self.run_of(name)).done.exists()]

    def after(self, name: str) -> tuple[str, ...]:
        """The stages that a stage waits for."""
        return next((stage.after for stage in self.stages if stage.name == name), ())


def is_chain(path: Path) -> bool:
    """Whether stages were submitted for the run at this very path."""
    return Folder.of_run(path).chain.is_file()


def read_chain(root: Path) -> Chain | None:
    """The chain at a path, None when there is none.

    Raises:
        RunDirectoryError: its record is damaged.
        OSError: it cannot be read.
    """
    record = Folder.of_run(root).chain
    facts: dict[str, Any] = read_json_object(record)
    if not facts and not record.is_file():
        return None
    directory, options = facts.get("directory"), facts.get("options")
    try:
        stages = read_stages(facts)
    except ValueError as error:
        hint = "hpcresume submit job.yaml writes it anew; the stages that are done stay so"
        raise RunDirectoryError(
            f"the record of the stages is damaged: {error}", where=str(record), hint=hint
        ) from error
    return Chain(
        root=root,
        stages=stages,
        directory=Path(directory) if isinstance(directory, str) else None,
        options=tuple(map(str, options)) if isinstance(options, list) else (),
    )


def stages_at(path: Path | str) -> list[Path]:
    """The runs of the stages, in order, where a path is that of a chain; else empty.

    Raises:
        RunDirectoryError: the record is damaged or cannot be read.
    """
    root = Path(path)
    try:
        chain = read_chain(root)
        return [run for run in chain.runs if run.is_dir()] if chain is not None else []
    except OSError as error:
        what = f"the run cannot be read: {error.strerror or error}"
        raise RunDirectoryError(what, where=str(error.filename or root)) from error


def chain_of_stage(run: Path) -> Chain | None:
    """The chain that a run is a stage of, None for any other run.

    Raises:
        RunDirectoryError, OSError: as `read_chain`.
    """
    run = run.absolute()
    chain = read_chain(run.parent)
    return chain if chain is not None and run in chain.runs else None
