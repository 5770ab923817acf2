"""The options by which render and submit are told what the job is, and how a loaded job explains itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpcresume.cli.output import Column, echo_json, echo_table

if TYPE_CHECKING:
    from hpcresume.config.job import LoadedJob

__all__ = ["explain", "job_options", "load"]

F = TypeVar("F", bound=Callable[..., Any])


def job_options(command: F) -> F:
    """JOB_YAML and --set, as `path` and `sets`."""
    path = click.argument("path", metavar="[JOB_YAML]", default="job.yaml", type=click.Path(path_type=Path))
    sets = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE",
                        help="Set a key: --set resources.nodes=4. Wins over variables and the file. Repeatable."
                        )  # fmt: skip
    return path(sets(command))


def load(path: Path, sets: tuple[str, ...]) -> LoadedJob:
    """The checked job.

    Raises:
        ConfigError: something is wrong in it.
    """
    from hpcresume.config.job import load_job

    return load_job(path, sets=sets, environ=os.environ)


def explain(job: LoadedJob, *, as_json: bool) -> None:
    """Every key: its value, who said so, and what that won over."""
    if as_json:
        echo_json({"settings": [
            {"key": s.key, "value": s.value, "source": s.source,
             "overrode": [{"source": source, "value": value} for source, value in s.overrode]}
            for s in job.settings
        ]})  # fmt: skip
        return
    columns = [Column("KEY"), Column("VALUE", fold=True), Column("SOURCE"), Column("OVERRODE", style="dim", fold=True)]
    rows = [
        [s.key, _shown(s.value), s.source, ", ".join(f"{_shown(value)} ({source})" for source, value in s.overrode)]
        for s in job.settings
    ]
    echo_table(columns, rows)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
