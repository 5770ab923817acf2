"""From a job description that names a function to a submitit executor that runs it under `hpcresume launch`.

Owns what submitit is told. Wraps nothing itself: what goes into a job is given to it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.config.job import check_job, load_job
from hpcresume.config.job_nodes import quoted
from hpcresume.config.job_spec import JobSpec
from hpcresume.errors import ConfigError, SlurmError
from hpcresume.submit.launch_words import requeue_words, time_words
from hpcresume.submit.private_folder import private_folder
from hpcresume.submit.script import POLICY, set_up_lines
from hpcresume.submit.submitit_parameters import local_parameters, slurm_options, slurm_parameters

__all__ = ["CLUSTERS", "Request", "argument_sets", "importable_name", "prepared", "read_request", "submit_one"]

CLUSTERS = ("slurm", "local", "debug")
_NO_SUBMITIT = "pip install 'hpcresume[submitit]'"
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\]")
"""submitit quotes for bash, where a line break still ends an #SBATCH line; sbatch itself reads a backslash as an
escape inside every kind of quotes, which bash's quoting does not expect (src/sbatch/opt.c, _get_argument)."""


@dataclass(frozen=True)
class Request:
    """A checked wish to run a function.

    Attributes:
        spec: the job; its function, args and kwargs are those below.
        function: what is called.
        cluster: one of `CLUSTERS`.
        folder: of submitit's files and logs.
    """

    spec: JobSpec
    function: Callable[..., Any]
    cluster: str
    folder: Path
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> str:
        """The run's directory, absolute; of an array the stem to which `-TASK` is added."""
        return str(Path(self.spec.run_directory).absolute())


def read_request(
    spec: JobSpec | Mapping[str, Any] | str | os.PathLike[str],
    *,
    cluster: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Request:
    """Check a description; see `hpcresume.submit` for its forms.

    Raises:
        ConfigError: something in it is wrong; the key is named.
    """
    function: Any = None
    if isinstance(spec, str | os.PathLike):
        loaded = load_job(Path(spec), environ=os.environ)
        if loaded.stages:
            raise ConfigError("stages go through sbatch", where=str(spec), hint=f"hpcresume submit {spec}")
        spec = loaded.spec
    if isinstance(spec, JobSpec):
        spec = dict(msgspec.to_builtins(spec))
    given = _mapping(spec)
    args, kwargs = given.pop("args", None), given.pop("kwargs", None)  # any Python objects: they are pickled
    for key, value, kind, words in (("args", args, list | tuple, "a list"), ("kwargs", kwargs, Mapping, "a mapping")):
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"expected {words}, not {quoted(value)}", where=key)
    if callable(given.get("function")):
        function = given["function"]
        given["function"] = "python:function"
    checked = _checked(given)
    if function is None:
        function = _imported(checked.function or "")
    chosen = cluster or ("slurm" if shutil.which("sbatch") and shutil.which("srun") else "local")
    if chosen not in CLUSTERS:
        raise ConfigError(f"{cluster!r} is none of submitit's executors", where="cluster", hint=", ".join(CLUSTERS))
    place = Path(folder if folder is not None else Path(checked.run_directory) / "submitit").absolute()
    return Request(checked, function, chosen, _written(place), tuple(args or ()), dict(kwargs or {}))


def _mapping(spec: object) -> dict[str, Any]:
    if not isinstance(spec, Mapping):
        what, hint = f"{quoted(spec)} describes no job", "the path of a job.yaml, a dict, or a JobSpec"
        raise ConfigError(what, where="hr.submit", hint=hint)
    return dict(spec)


def _checked(given: Mapping[str, Any]) -> JobSpec:
    if given.get("function") is None:
        raise ConfigError("no function", where="function", hint='function: "package.module:function"')
    return check_job(given, name="hr.submit")


def _imported(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # where the job will look for it, too: `python -m` puts it first
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the function cannot be found: {error}", where=f"function: {name}") from error
    if not callable(found):
        raise ConfigError("it is no function", where=f"function: {name}")
    return found  # type: ignore[no-any-return]


def importable_name(function: Callable[..., Any]) -> str | None:
    """`package.module:function` by which another process finds this very object; None when none does."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not isinstance(module, str) or module == "__main__" or not str(name).isidentifier():
        return None
    return f"{module}:{name}" if getattr(sys.modules.get(module), str(name), None) is function else None


def _written(folder: Path) -> Path:
    """A folder whose name submitit and sbatch take as it is: neither has an escape for %."""
    bad = _UNWRITABLE.search(str(folder)) or re.search("%", str(folder))
    if bad:
        what = f"the job folder's name holds {bad[0]!r}: {quoted(str(folder))}"
        raise ConfigError(what, where="folder", hint="a plain path")
    return folder


def argument_sets(iterables: Iterable[Iterable[Any]]) -> list[tuple[Any, ...]]:
    """The arguments of each task, as `map` would give them.

    Raises:
        ConfigError: there is none, or the iterables are not of one length.
    """
    try:
        found = list(zip(*iterables, strict=True))
    except ValueError as error:
        what = f"the lists of arguments are not of one length: {error}"
        raise ConfigError(what, where="map_array", hint="one value for each task in each of them") from error
    if not found:
        raise ConfigError("no arguments, so no task", where="map_array", hint="at least one value in each list")
    return found


@contextlib.contextmanager
def prepared(request: Request, *, tasks: int | None = None) -> Iterator[Any]:
    """A ready executor of submitit's; what is submitted inside the block gets the job's variables.

    Args:
        request: what is wished.
        tasks: how many sets of arguments will be submitted, each with a run of its own; None: one job for the run
            itself. submitit makes an array of two and more, and of a single one a job.

    Raises:
        ConfigError: submitit is missing, or refuses a value.
        RunDirectoryError: the folder is not ours alone.
        SlurmError: inside the block, when sbatch refuses.
    """
    try:
        import submitit
    except ImportError as error:
        what = f"a function needs submitit: {error}"
        raise ConfigError(what, where="function", hint=_NO_SUBMITIT) from error
    slurm = request.cluster == "slurm"
    parameters = _for_slurm(request.spec) if slurm else local_parameters(request.spec)
    folder = private_folder(request.folder)
    try:
        executor = (
            submitit.SlurmExecutor(folder, python=_launch(request, tasks))
            if slurm
            else submitit.AutoExecutor(folder, cluster=request.cluster)
        )
        executor.update_parameters(**parameters)
    except (ValueError, NameError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"submitit refuses the job: {error}", where=f"cluster {request.cluster}") from error
    with submitit.helpers.environment_variables(**_variables(request)), _sbatch_errors(request):
        yield executor


@contextlib.contextmanager
def _sbatch_errors(request: Request) -> Iterator[None]:
    """What submitit raises when sbatch refuses or cannot be understood, as our own commands raise it."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        yield
    except (FailedJobError, FailedSubmissionError) as error:
        words = " ".join(str(error).split())[:300]
        what = f"sbatch refused: {''.join(c if c.isprintable() else '?' for c in words)}"
        raise SlurmError(what, where=f"job {quoted(request.spec.name)}", hint="hpcresume submit --dry-run") from error


def submit_one(request: Request, task: Callable[..., Any]) -> Any:
    """Submit one job; what it runs is `task`, called with the request's arguments.

    Raises:
        ConfigError, RunDirectoryError, SlurmError: see `prepared`.
    """
    with prepared(request) as executor:
        return executor.submit(task, *request.args, **request.kwargs)


def _variables(request: Request) -> dict[str, str]:
    policy = {name: getattr(request.spec.checkpoint, key) for name, key in POLICY.items()}
    return dict(request.spec.environment.variables) | {k: str(v) for k, v in policy.items() if v is not None}


def _for_slurm(spec: JobSpec) -> dict[str, Any]:
    """What `SlurmExecutor.update_parameters` takes, every text looked at."""
    parameters, options = slurm_parameters(spec, set_up_lines(spec)), slurm_options(spec)
    for name, value, key in [*parameters, *options]:
        if name != "setup":  # raw shell, and known as such
            _check_texts(value, key)
    return {name: value for name, value, _ in parameters} | {
        "additional_parameters": {name: value for name, value, _ in options}
    }


def _check_texts(value: object, key: str) -> None:
    bad = _UNWRITABLE.search(str(value))
    if bad:
        raise ConfigError(f"{key} holds {bad[0]!r}, which has no place in an #SBATCH line", where=key)


def _launch(request: Request, tasks: int | None) -> str:
    """The shell text before `-u -m submitit.core._submit FOLDER`: the supervisor, and Python as what it starts."""
    array = tasks is not None and tasks > 1
    requeue, ids = request.spec.requeue, "%A_%a" if array else "%j"
    logs = f"{request.folder}/{ids}_%t_log"
    words = [
        *(word for word, _ in [*requeue_words(requeue), *time_words(request.spec)]),
        f"--option=--output={logs}.out",
        f"--option=--error={logs}.err",
        "--option=--open-mode=append",
        "--option=--unbuffered",
        "--",
        sys.executable,
    ]  # fmt: skip
    alone = f"{request.run}-0" if tasks == 1 else request.run
    run = shlex.quote(alone) + ('-"$SLURM_ARRAY_TASK_ID"' if array else "")
    begin = shlex.join(["exec", sys.executable, "-m", "hpcresume", "launch", "--run"])
    return f"{begin} {run} {shlex.join(words)}"
