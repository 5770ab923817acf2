"""Fills a template from a job: the batch script of a command, or the submitting script of a function.

Every value goes through one of the filters of `quoting`; a name that is not given is an error, not an empty text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from hpcresume.config.job_spec import JobSpec
from hpcresume.config.job_stages import run_variable
from hpcresume.submit import quoting
from hpcresume.submit.launch_words import requeue_words, time_words
from hpcresume.submit.lead import warning_lead
from hpcresume.submit.sbatch_options import asked, fixed

__all__ = ["fill", "render", "set_up_lines"]

TEMPLATES = Path(__file__).with_name("templates")
_LINE = 110
"""Characters of a line in a script for people."""
POLICY = {
    "HPCRESUME_CHECKPOINT_EVERY": "every",
    "HPCRESUME_CHECKPOINT_KEEP": "keep",
    "HPCRESUME_CHECKPOINT_VERIFY": "verify",
    "HPCRESUME_CHECKPOINT_WRITE_PATH": "write_path",
}
"""Variables through which `hr.session` hears of the job's checkpoint section."""


def render(
    spec: JobSpec,
    *,
    heading: str = "Made by `hpcresume render`.",
    plain: bool = False,
    stage: str = "",
    after: Mapping[str, str] | None = None,
) -> str:
    """The script of a job: bash for sbatch, or Python for submitit when the job is a function.

    Args:
        spec: a checked job.
        heading: the comment at the top.
        plain: for people who fill it in by hand: says where set-up goes.
        stage: the name of the stage that the job is, "" for one that is none.
        after: the stages that it waits for, by name, and the run of each.

    Raises:
        ConfigError: a value cannot stand in a script; the key is named.
    """
    name = "batch.sbatch.j2" if spec.function is None else "submitit_job.py.j2"
    return fill(
        name,
        spec=spec,
        heading=heading,
        plain=plain,
        asked=asked(spec),
        fixed=fixed(spec),
        policy=_policy(spec),
        has_set_up=bool(set_up_lines(spec)),
        words=list(spec.words),
        dollars=_looks_like_expansion(spec),
        launch_options=_launch_options(spec, stage),
        before=[(name, run_variable(name), run) for name, run in (after or {}).items()],
        warning_signal=spec.requeue.warning_signal,
        warning_lead=warning_lead(spec),
        job_lines=_job_lines(spec) if spec.function is not None else (),
    )


def set_up_lines(spec: JobSpec) -> list[str]:
    """The shell lines that prepare the environment, as they stand in the script.

    Raises:
        ConfigError: a value cannot stand in a script; the key is named.
    """
    text = fill("set_up.sh.j2", spec=spec, policy=_policy(spec))
    return text.removesuffix("\n").split("\n") if text else []  # not splitlines: bash ends a line nowhere else


def fill(template: str, **values: Any) -> str:
    """The text of a template."""
    return _engine().get_template(template).render(**values)


@functools.cache
def _engine() -> jinja2.Environment:
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - scripts, not web pages; the filters below quote
    )
    engine.filters |= {
        "shell": quoting.shell_word,
        "shells": quoting.shell_words,
        "sbatch": quoting.sbatch_word,
        "python": quoting.python_value,
        "yaml": quoting.yaml_word,
        "comment": _comment,
        "local_path": lambda path: f"./{path}" if path.startswith("-") else path,
    }
    return engine


def _job_lines(spec: JobSpec) -> list[str]:
    """What differs from the defaults, as lines of a Python dict; a section that fits into one line has one."""
    lines: list[str] = []
    for key, value in _given(spec).items():
        line = f'    "{key}": {quoting.python_value(value, key)},'
        if isinstance(value, dict) and len(line) > _LINE:
            inner = (f'        "{k}": {quoting.python_value(v, f"{key}.{k}")},' for k, v in value.items())
            lines += [f'    "{key}": {{', *inner, "    },"]
        else:
            lines.append(line)
    return lines


def _given(section: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(section):
        value = getattr(section, field.name)
        default = field.default if field.default is not msgspec.NODEFAULT else None
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else default
        if isinstance(value, msgspec.Struct):
            value, default = _given(value), {}
        if value != default:
            found[field.name] = msgspec.to_builtins(value)
    return found


def _looks_like_expansion(spec: JobSpec) -> bool:
    """Does a value hold what shellcheck takes for a forgotten expansion (SC2016)?"""
    container = spec.container
    values = [spec.run_directory, *spec.words, *spec.environment.variables.values(), *spec.environment.modules]
    values += [spec.environment.venv or "", spec.environment.conda or "", spec.checkpoint.every or ""]
    values += [container.image, *container.binds, *container.options] if container is not None else []
    return any(re.search("[$`]", value) for value in values)


def _comment(text: str) -> str:
    return "\n".join(f"# {quoting.apart(line, 'heading')}" for line in text.split("\n"))


def _policy(spec: JobSpec) -> list[tuple[str, str, str]]:
    values = ((name, getattr(spec.checkpoint, key), f"checkpoint.{key}") for name, key in POLICY.items())
    return [(name, str(value), field) for name, value, field in values if value is not None]


def _launch_options(spec: JobSpec, stage: str) -> str:
    words: list[str] = []
    if spec.starter != "srun":
        words += ["--mpi", spec.starter]
    if spec.workers_per_node is not None:
        words += ["--workers-per-node", str(spec.workers_per_node)]
    words += [quoting.shell_word(word, key) for word, key in [*requeue_words(spec.requeue), *time_words(spec)]]
    words += [f"--stage={quoting.shell_word(stage, 'stages')}"] if stage else []
    return "".join(f" {word}" for word in words)
