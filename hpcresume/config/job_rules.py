"""What must hold between the values of a job, and what a type cannot say of one: times, quotations, exclusions."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import PurePath

from hpcresume.config.durations import parse_cadence, parse_duration
from hpcresume.config.job_spec import Checkpoint, JobSpec
from hpcresume.config.job_variables import broken_variables
from hpcresume.config.slurm_options import parse_time_limit, why_not
from hpcresume.errors import ConfigError

__all__ = ["Broken", "broken_rules"]

Broken = tuple[str, str, str]
"""Key, what is wrong, what to try."""

LONGEST_LEAD = 65535
"""Seconds: the most that sbatch's --signal takes (sbatch(1))."""
_SHELL_WORDS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"})
_PYTHON = re.compile(r"python(\d+(\.\d+)*)?")
_OF_TASK = re.compile(r"%[0-9]*[aj]")
"""sbatch's patterns that differ from task to task (sbatch(1), FILENAME PATTERN): its number and its job's."""
_HIDING = {
    "cleanenv": "e", "contain": "c", "containall": "C", "ipc": "i", "net": "n", "pid": "p",
}  # fmt: skip
"""Options of apptainer, and their letters, with which the ranks would not see Slurm, MPI, us, or each other: an empty
environment, a /dev and a /tmp of their own, own process numbers, own shared memory, own network (apptainer-exec(1))."""
_FLAGS = re.compile(r"-([acefinpuwC]+)")
"""Letters of apptainer that take no value and may stand together: -eC."""
_BIND = re.compile(r"[^:]+(:[^:]+(:(ro|rw))?)?")
"""`source[:destination[:ro|rw]]` (apptainer-exec(1), --bind); there is no escape for the colon."""


def broken_rules(spec: JobSpec) -> Iterator[Broken]:
    """Every rule that this job breaks."""
    for rule in (_name, _program, _function, _torchrun, _texts, _log, _fallback, _time_min, _warning, _memory, _gpus,
                 _sbatch_options, _variables, _container):  # fmt: skip
        yield from rule(spec)


def _name(spec: JobSpec) -> Iterator[Broken]:
    if spec.name in (".", ".."):
        yield ("name", f"{spec.name!r} is a folder's name for itself or for the one above", "my-run")


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
    if spec.log is not None:
        what = "is for commands; submitit keeps the logs of a function, one for each rank"
        yield ("log", what, "leave it out: RUN/submitit/JOB_RANK_log.out and .err")
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
    if spec.requeue.warning_lead != "auto":
        yield from _parsed("requeue.warning_lead", parse_duration, spec.requeue.warning_lead)
    for key, text in (("pause", spec.requeue.pause), ("exclude_for", spec.requeue.exclude_for),
                      ("fallback.after_waiting", spec.requeue.fallback.after_waiting)):  # fmt: skip
        if text is not None and not (text == "off" and key != "fallback.after_waiting"):
            yield from _parsed(f"requeue.{key}", parse_duration, text)


def _fallback(spec: JobSpec) -> Iterator[Broken]:
    fallback = spec.requeue.fallback
    conditions = (fallback.after_failures, fallback.after_preemptions, fallback.after_waiting)
    named, conditional = fallback.partition or fallback.nodes, any(each is not None for each in conditions)
    if named and not conditional:
        key = "partition" if fallback.partition else "nodes"
        yield (f"requeue.fallback.{key}", "never happens", "after_failures, after_preemptions or after_waiting")
    if conditional and not named:
        key = next(k for k in ("after_failures", "after_preemptions", "after_waiting") if getattr(fallback, k))
        yield (f"requeue.fallback.{key}", "falls back to nothing", "name a partition, or fewer nodes")
    if fallback.nodes is not None and fallback.nodes >= spec.resources.nodes:
        yield ("requeue.fallback.nodes", f"is not fewer than resources.nodes ({spec.resources.nodes})", "fewer")


def _log(spec: JobSpec) -> Iterator[Broken]:
    """Tasks of an array run at the same time, and each attempt of each would write into one file."""
    if spec.log is None or spec.resources.array is None or spec.log.startswith("/dev/"):
        return
    if not _OF_TASK.search(spec.log.replace("%%", "")):
        path = PurePath(spec.log)
        named = path.with_name(f"{path.stem}-%a{path.suffix}") if path.name else path / "%A_%a.out"
        yield ("log", "all tasks of the array would write into this one file", str(named))


def _parsed(key: str, parse: Callable[[str], object], text: str) -> Iterator[Broken]:
    try:
        parse(text)
    except ConfigError as error:
        yield (key, error.what, error.hint)


def _warning(spec: JobSpec) -> Iterator[Broken]:
    if spec.requeue.warning_lead == "auto":
        return
    try:
        lead = parse_duration(spec.requeue.warning_lead)
        least = parse_time_limit(spec.resources.time_min) if spec.resources.time_min is not None else None
        limit = parse_time_limit(spec.resources.time) if spec.resources.time is not None else None
    except ConfigError:
        return
    key = "requeue.warning_lead"
    if lead > LONGEST_LEAD:
        yield (key, f"Slurm takes at most {LONGEST_LEAD} s", "18h")
    elif limit is not None and lead >= limit:
        yield (key, "is not shorter than the time limit: each attempt would begin with its warning",
               f"{max(1, math.floor(limit / 4))}s")  # fmt: skip
    elif least is not None and lead >= least:
        yield (key, "is not shorter than time_min: an attempt with no more would begin with its warning",
               f"{max(1, math.floor(least / 4))}s")  # fmt: skip


def _time_min(spec: JobSpec) -> Iterator[Broken]:
    key, text = "resources.time_min", spec.resources.time_min
    if text is None:
        return
    wrong = [*_parsed(key, parse_time_limit, text)]
    if wrong or (
        spec.resources.time is not None and [*_parsed("resources.time", parse_time_limit, spec.resources.time)]
    ):
        yield from wrong  # what is wrong with the time is said of it
        return
    least = parse_time_limit(text)
    limit = parse_time_limit(spec.resources.time) if spec.resources.time is not None else None
    if least is None:
        yield (key, "is a time, not the absence of a limit", "1h")
    elif spec.resources.time is None:
        yield (key, "makes do with less than resources.time, and there is none", "resources.time: 24h")
    elif limit is not None and least > limit:
        yield (key, "is longer than resources.time", f"{max(1, math.floor(limit / 4 / 60))}min")


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
        reason = why_not(option)
        if reason is not None:
            what = f"{option.partition('=')[0]} is not for here: {reason[0]}"
            yield (f"resources.options[{index}]", what, reason[1])


def _variables(spec: JobSpec) -> Iterator[Broken]:
    yield from broken_variables(spec.environment.variables, frozenset(Checkpoint.__struct_fields__))
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
        if _hides(option):
            what = f"{option} hides Slurm, MPI, hpcresume or the other ranks from a rank"
            yield (f"container.options[{index}]", what, "leave it out")
    if spec.container.image.startswith("-"):
        yield ("container.image", "begins with a dash", "./" + spec.container.image)
    if re.search("[:,]", spec.run_directory):
        yield ("run", "apptainer takes : and , in a folder's name as separators", "runs/my-run")
    for index, bind in enumerate(spec.container.binds):
        key = f"container.binds[{index}]"
        if "," in bind:
            yield (key, "a comma begins another bind, so no folder's name may hold one", "one bind an entry")
        elif not _BIND.fullmatch(bind):
            yield (key, "is no bind; a folder's name may hold no colon", "/data, /data:/mnt or /data:/mnt:ro")


def _hides(option: str) -> bool:
    letters = _FLAGS.fullmatch(option)
    if letters:
        return bool(set(letters[1]) & set(_HIDING.values()))
    return option.partition("=")[0].removeprefix("--") in _HIDING
