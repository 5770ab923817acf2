"""From a job description that names a function to a submitit executor that runs it under `hpcresume launch`.

Owns the private job folder and what submitit is told. Wraps nothing itself: what goes into a job is given to it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hpcresume.config.durations import parse_duration
from hpcresume.config.job import load_job
from hpcresume.config.job_rules import broken_rules
from hpcresume.config.job_spec import JobSpec
from hpcresume.errors import ConfigError, RunDirectoryError
from hpcresume.submit.script import POLICY, set_up_lines
from hpcresume.submit.submitit_parameters import executor_parameters

__all__ = ["CLUSTERS", "Request", "prepared", "private_folder", "read_request", "submit_one"]

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
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    function: Any = None
    if isinstance(spec, str | os.PathLike):
        spec = load_job(Path(spec), environ=os.environ).spec
    if isinstance(spec, JobSpec):
        spec = dict(msgspec.to_builtins(spec))
    given: dict[str, Any] = {**spec}
    args, kwargs = list(given.pop("args", ())), dict(given.pop("kwargs", {}))
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
    return Request(checked, function, chosen, _written(place), tuple(args), kwargs)


def _checked(given: Mapping[str, Any]) -> JobSpec:
    try:
        spec = msgspec.convert(given, JobSpec)
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(f"the job is described wrongly: {error}", where="submit", hint="docs/JOB_YAML.md") from error
    if spec.function is None:
        raise ConfigError("no function", where="function", hint='function: "package.module:function"')
    for key, what, hint in broken_rules(spec):
        raise ConfigError(f"{key} {what}", where=key, hint=hint)
    return spec


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


def _written(folder: Path) -> Path:
    """A folder whose name submitit and sbatch take as it is: neither has an escape for %."""
    bad = _UNWRITABLE.search(str(folder)) or re.search("%", str(folder))
    if bad:
        raise ConfigError(f"the job folder's name holds {bad[0]!r}", where=repr(str(folder)), hint="a plain path")
    return folder


def private_folder(folder: Path) -> Path:
    """Make the folder (0700) or accept one that is ours alone: what is unpickled from it runs as we.

    Raises:
        RunDirectoryError: it is a link or no directory, another user's, or open to others; or cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        facts = folder.lstat()
    except OSError as error:
        raise RunDirectoryError(f"the job folder cannot be made: {error.strerror}", where=str(folder)) from error
    wrong = None
    if not stat.S_ISDIR(facts.st_mode):
        wrong = "is a link" if stat.S_ISLNK(facts.st_mode) else "is no directory"
    elif facts.st_uid != os.geteuid():
        wrong = f"belongs to user {facts.st_uid}"
    elif facts.st_mode & 0o077:
        wrong = f"is open to others (mode {stat.S_IMODE(facts.st_mode):04o})"
    if wrong:
        hint = f"chmod 700 {folder}" if "open" in wrong else "another folder"
        raise RunDirectoryError(f"the job folder {wrong}; its pickles are code", where=str(folder), hint=hint)
    return folder


@contextlib.contextmanager
def prepared(request: Request, *, array: bool = False) -> Iterator[Any]:
    """A ready `submitit.AutoExecutor`; what is submitted inside the block gets the job's variables.

    Raises:
        ConfigError: submitit is missing, or refuses a value.
        RunDirectoryError: the folder is not ours alone.
    """
    try:
        import submitit
    except ImportError as error:
        what = f"a function needs submitit: {error}"
        raise ConfigError(what, where="function", hint=_NO_SUBMITIT) from error
    parameters = _parameters(request)
    folder = private_folder(request.folder)
    python = {"slurm_python": _launch(request, array=array)} if request.cluster == "slurm" else {}
    try:
        executor = submitit.AutoExecutor(folder, cluster=request.cluster, **python)
        executor.update_parameters(name=request.spec.name, **parameters)
    except (ValueError, NameError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"submitit refuses the job: {error}", where=f"cluster {request.cluster}") from error
    with submitit.helpers.environment_variables(**_variables(request)):
        yield executor


def submit_one(request: Request, task: Callable[..., Any]) -> Any:
    """Submit one job; what it runs is `task`, called with the request's arguments.

    Raises:
        ConfigError, RunDirectoryError: see `prepared`.
    """
    with prepared(request) as executor:
        return executor.submit(task, *request.args, **request.kwargs)


def _variables(request: Request) -> dict[str, str]:
    policy = {name: getattr(request.spec.checkpoint, key) for name, key in POLICY.items()}
    return dict(request.spec.environment.variables) | {k: str(v) for k, v in policy.items() if v is not None}


def _parameters(request: Request) -> dict[str, Any]:
    """What `update_parameters` takes, without the name."""
    spec = request.spec
    found: dict[str, Any] = {}
    for name, value, key in [("name", spec.name, "name"), *executor_parameters(spec, set_up_lines(spec))]:
        if name != "slurm_setup":  # raw shell, and known as such
            _check_texts(value, key)
        found[name] = value
    del found["name"]
    lead = max(1, round(parse_duration(spec.requeue.warning_lead)))
    # To the batch step, where the supervisor is; submitit's own form goes to the ranks.
    found["slurm_additional_parameters"]["signal"] = f"B:{spec.requeue.warning_signal}@{lead}"
    found["slurm_use_srun"] = False
    return found


def _check_texts(value: object, key: str) -> None:
    if isinstance(value, Mapping):
        value = [each for pair in value.items() for each in pair]
    for each in value if isinstance(value, list | tuple) else [value]:
        bad = _UNWRITABLE.search(str(each))
        if bad:
            raise ConfigError(f"{key} holds {bad[0]!r}, which has no place in an #SBATCH line", where=key)


def _launch(request: Request, *, array: bool) -> str:
    """The shell text before `-u -m submitit.core._submit FOLDER`: the supervisor, and Python as what it starts."""
    requeue, ids = request.spec.requeue, "%A_%a" if array else "%j"
    budgets = [] if requeue.max_restarts is None else ["--max-restarts", str(requeue.max_restarts)]
    logs = f"{request.folder}/{ids}_%t_log"
    words = [
        "--max-crashes", str(requeue.max_crashes),
        *budgets,
        *([] if requeue.enabled else ["--no-requeue"]),
        f"--option=--output={logs}.out",
        f"--option=--error={logs}.err",
        "--option=--open-mode=append",
        "--option=--unbuffered",
        "--",
        sys.executable,
    ]  # fmt: skip
    run = shlex.quote(request.run) + ('-"$SLURM_ARRAY_TASK_ID"' if array else "")
    begin = shlex.join(["exec", sys.executable, "-m", "hpcresume", "launch", "--run"])
    return f"{begin} {run} {shlex.join(words)}"
