"""The one run that a path means, for verbs that work on a single run; one that was only submitted counts."""

from __future__ import annotations

from pathlib import Path

from hpcresume.checkpoint.places import read_place
from hpcresume.checkpoint.run import read_run
from hpcresume.errors import RunDirectoryError
from hpcresume.io.paths import RunPaths
from hpcresume.ops.overview import is_run
from hpcresume.ops.submitted import has_submission
from hpcresume.ops.targets import refuse_chain, typed

__all__ = ["the_run"]


def the_run(path: Path | str) -> RunPaths:
    """The run at `path`.

    Raises:
        ConfigError: the path is empty.
        RunDirectoryError: there is no run, or it cannot be read.
        FormatVersionError: it has another format version.
    """
    run, _ = read_place(path)
    refuse_chain(run)
    with typed(run):
        if not run.run_json.is_file() and has_submission(run.root):
            return run
        if run.root.is_dir() and not is_run(run.root):
            hint = "a run's own directory; hpcresume status lists those in a folder"
            raise RunDirectoryError("there is no run here", where=str(run.root), hint=hint)
    read_run(run)
    return run
