"""What must hold between the values of a job, and what a type cannot say of one: times, quotations, exclusions."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import PurePath

from hpcresume.config.durations import parse_cadence, parse_duration
from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import option_key, parse_time_limit
from hpcresume.errors import ConfigError

__all__ = ["Broken", "broken_rules"]

Broken = tuple[str, str, str]
"""Key, what is wrong, what to try."""

LONGEST_LEAD = 65535
"""Seconds: the most that sbatch's --signal takes (sbatch(1))."""
_SHELL_WORDS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"})
_PYTHON = re.compile(r"python(\d+(\.\d+)*)?")
_READ_ONLY = frozenset({"BASHOPTS", "BASHPID", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
"""Variables that bash does not let anyone set (bash(1))."""
_HIDING = ("--cleanenv", "-e", "--containall", "-C", "--pid", "-p")
"""Options of apptainer with which the ranks would see neither Slurm, nor MPI, nor us (apptainer-exec(1))."""


def broken_rules(spec: JobSpec) -> Iterator[Broken]:
    """Every rule that this job breaks."""
    for rule in (_program, _function, _torchrun, _texts, _warning, _memory, _gpus, _sbatch_options, _variables,
                 _container):  # fmt: skip
        yield from rule(spec)


def _program(spec: JobSpec) -> Iterator[Broken]:
    if (spec.command is None) == (spec.function is None):
        what = "neither a command nor a function" if spec.command is None else "a command and a function"
        yield ("command", what, "command: python train.py")
    if spec.command == ():
        yield ("command", "is empty", "command: python train.py")
    if not isinstance(spec.command, str):
        return
    try:
        words = shlex.split(spec.command)
    except ValueError as error:
        yield ("command", f"cannot be split into words: {error}", 'a list: [python, train.py, "--name=a b"]')
        return
    if not words:
        yield ("command", "is empty", "command: python train.py")
    strange = sorted(_SHELL_WORDS & set(words))
    if strange:
        hint = "redirect by log:, prepare in environment.before_commands; a list gives such words to the program"
        yield ("command", f"no shell runs it, so {' '.join(strange)} would be an argument", hint)


def _function(spec: JobSpec) -> Iterator[Broken]:
    if spec.function is None:
        for key, given in (("args", spec.args), ("kwargs", spec.kwargs)):
            if given:
                yield (key, "belongs to a function, and there is none", "write arguments into the command")
        return
    if spec.starter != "srun":
        yield ("starter", f"{spec.starter} starts commands; a function is started by submitit", "command:")
    if spec.container is not None:
        yield ("container", "a function cannot run in a container", "command:")
    if spec.resources.array is not None:
        yield ("resources.array", "is for commands; tasks of a function come from Python", "executor.map_array")


def _torchrun(spec: JobSpec) -> Iterator[Broken]:
    if spec.starter != "torchrun":
        if spec.workers_per_node is not None:
            yield ("workers_per_node", f"is for torchrun; the starter is {spec.starter}", "resources.ntasks_per_node")
        return
    if spec.resources.ntasks_per_node != 1:
        what = "torchrun's agent is one task a node"
        yield ("resources.ntasks_per_node", what, f"1, and workers_per_node: {spec.resources.ntasks_per_node}")
    if spec.container is not None:
        yield ("container", "cannot be combined with torchrun yet", "starter: srun")
    words = _words(spec)
    if words and _PYTHON.fullmatch(PurePath(words[0]).name):
        yield ("command", "torchrun starts Python itself", " ".join(words[1:])[:60] or "train.py")


def _words(spec: JobSpec) -> tuple[str, ...]:
    try:
        return spec.words
    except ValueError:
        return ()


def _texts(spec: JobSpec) -> Iterator[Broken]:
    """Texts with a grammar of their own."""
    if spec.resources.time is not None:
        yield from _parsed("resources.time", parse_time_limit, spec.resources.time)
    if spec.checkpoint.every is not None:
        yield from _parsed("checkpoint.every", parse_cadence, spec.checkpoint.every)
    yield from _parsed("requeue.warning_lead", parse_duration, spec.requeue.warning_lead)


def _parsed(key: str, parse: Callable[[str], object], text: str) -> Iterator[Broken]:
    try:
        parse(text)
    except ConfigError as error:
        yield (key, error.what, error.hint)


def _warning(spec: JobSpec) -> Iterator[Broken]:
    try:
        lead = parse_duration(spec.requeue.warning_lead)
        limit = parse_time_limit(spec.resources.time) if spec.resources.time is not None else None
    except ConfigError:
        return
    key = "requeue.warning_lead"
    if lead > LONGEST_LEAD:
        yield (key, f"Slurm takes at most {LONGEST_LEAD} s", "18h")
    elif limit is not None and lead >= limit:
        yield (key, "is not shorter than the time limit: each attempt would begin with its warning",
               f"{max(1, math.floor(limit / 4))}s")  # fmt: skip


def _memory(spec: JobSpec) -> Iterator[Broken]:
    if spec.resources.mem is not None and spec.resources.mem_per_cpu is not None:
        yield ("resources.mem_per_cpu", "mem and mem_per_cpu exclude each other", "one of them")


def _gpus(spec: JobSpec) -> Iterator[Broken]:
    form = re.compile(r"([A-Za-z0-9_.-]+:)?[1-9][0-9]{0,5}(,[A-Za-z0-9_.-]+:[1-9][0-9]{0,5})*")
    for name in ("gpus_per_node", "gpus_per_task"):
        value = getattr(spec.resources, name)
        if isinstance(value, str) and not form.fullmatch(value):
            yield (f"resources.{name}", "is no number of GPUs", "4 or a100:4")


def _sbatch_options(spec: JobSpec) -> Iterator[Broken]:
    for index, option in enumerate(spec.resources.options):
        key = option_key(option)
        if key is not None:
            hint = f"the key {key}" if key else "leave it out"
            yield (f"resources.options[{index}]", f"{option.partition('=')[0]} is not for here", hint)


def _variables(spec: JobSpec) -> Iterator[Broken]:
    for name in spec.environment.variables:
        if name in _READ_ONLY:
            yield (f"environment.variables.{name}", "bash lets nobody set it", "leave it out")
    if spec.environment.conda is not None and spec.environment.venv is not None:
        yield ("environment.venv", "conda and venv exclude each other", "one of them")
    if spec.environment.conda is not None and spec.environment.conda.startswith("-"):
        yield ("environment.conda", "begins with a dash: conda would take it as an option", "a name or a folder")
    for index, module in enumerate(spec.environment.modules):
        if module.startswith("-"):
            yield (f"environment.modules[{index}]", "begins with a dash: an option, no module", "cuda/12.4")


def _container(spec: JobSpec) -> Iterator[Broken]:
    if spec.container is None:
        return
    for index, option in enumerate(spec.container.options):
        if option.partition("=")[0] in _HIDING:
            what = f"{option} hides Slurm, MPI and hpcresume from the ranks"
            yield (f"container.options[{index}]", what, "leave it out")
    if spec.container.image.startswith("-"):
        yield ("container.image", "begins with a dash", "./" + spec.container.image)
    if re.search("[:,]", spec.run_directory):
        yield ("run", "apptainer takes : and , in a folder's name as separators", "runs/my-run")
    for index, bind in enumerate(spec.container.binds):
        if "," in bind:
            yield (f"container.binds[{index}]", "a comma begins another bind", "one bind an entry")
