"""The files of `hpcresume init`: job.yaml, train.py and job.sbatch, which run as they are."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from hpcresume.config.job import check_job, read_job
from hpcresume.errors import ConfigError, RunDirectoryError
from hpcresume.io.durable import create_durably, make_directory, write_durably
from hpcresume.submit.script import fill, render

__all__ = ["make_skeleton", "write_skeleton"]


def make_skeleton(directory: Path, *, name: str | None = None, training: str = "auto") -> dict[str, str]:
    """File name → text.

    Args:
        directory: where they will lie; its name is the job's by default.
        name: the job's name.
        training: "torch", "numpy", or "auto" for torch where it is installed.

    Raises:
        ConfigError: the name cannot be a job's.
    """
    if name is not None:
        _check_name(name)
    else:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", directory.absolute().resolve().name).strip("-.") or "my-run"
    with_torch = _has("torch") if training == "auto" else training == "torch"
    values = {
        "name": name,
        "mpi": _has("mpi4py"),
        "venv": sys.prefix if sys.prefix != sys.base_prefix else None,
    }
    job = fill("job.yaml.j2", **values)
    spec = read_job(job, name="job.yaml").spec
    return {
        "job.yaml": job,
        "train.py": fill("train_torch.py.j2" if with_torch else "train_numpy.py.j2", **values),
        "job.sbatch": render(spec, heading="Made by `hpcresume init` from job.yaml; `hpcresume render` makes it anew."),
    }


def _check_name(name: str) -> None:
    try:
        check_job({"name": name, "command": "x"}, name="--name")
    except ConfigError as error:
        raise ConfigError(error.what, where="--name", hint="letters, digits, dots and dashes: my-run") from error


def write_skeleton(directory: Path, files: dict[str, str], *, force: bool = False) -> None:
    """Write the files, all or, when one of them is there and `force` is not given, none.

    Raises:
        ConfigError: one of them exists.
        RunDirectoryError: the folder cannot be made.
    """
    there = [name for name in files if (directory / name).exists() or (directory / name).is_symlink()]
    if there and not force:
        raise ConfigError(f"{', '.join(there)} exist already", where=str(directory), hint="--force replaces them")
    try:
        make_directory(directory)
        for name, text in files.items():
            (write_durably if force else create_durably)(directory / name, text.encode(), mode=0o644)
    except OSError as error:
        where = str(error.filename or directory)
        raise RunDirectoryError(f"the files cannot be written: {error.strerror}", where=where) from error


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
