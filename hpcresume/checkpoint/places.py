"""What a caller means by a path: a run, or one generation of a run. Looks at the text alone."""

from __future__ import annotations

import os
from pathlib import Path

from hpcresume.errors import ConfigError, RunDirectoryError
from hpcresume.io.paths import RunPaths, parse_generation_name

__all__ = ["read_place", "run_path"]


def run_path(given: object) -> Path:
    """The absolute path that a caller gave for a run.

    Raises:
        ConfigError: it is no path, or an empty one, which would mean the working directory.
        RunDirectoryError: no filesystem can hold such a name.
    """
    hint = 'the path of a run directory, such as "runs/my-training"'
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"{given!r:.60} is no path", where="run", hint=hint)
    text = os.fspath(given)
    if not isinstance(text, str) or not text:
        raise ConfigError(f"{text!r:.60} is no path", where="run", hint=hint)
    if "\0" in text:
        raise RunDirectoryError("a path cannot hold a NUL", where=f"{text!r:.200}", hint="take the NUL out of it")
    return Path(os.path.abspath(text))


def read_place(given: object) -> tuple[RunPaths, str | None]:
    """The run that is meant, and the name of its generation if the path is RUN/generations/NAME.

    Raises:
        ConfigError, RunDirectoryError: as `run_path`.
    """
    path = run_path(given)
    named = path.parent.name == "generations" and parse_generation_name(path.name) is not None
    return (RunPaths(path.parent.parent), path.name) if named else (RunPaths(path), None)
