"""What can be known before a job is submitted: paths, programs, the script itself, and the partition's limits.

Each check ends as ok, failed, or skipped with the reason; nothing is changed anywhere.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcresume.config.durations import parse_duration
from hpcresume.config.job_spec import JobSpec
from hpcresume.config.slurm_options import parse_time_limit
from hpcresume.errors import ConfigError, SlurmError
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.submission import Partition, partition

__all__ = ["Check", "preflight"]

_OVERRIDING = ("SBATCH_NO_REQUEUE", "SBATCH_REQUEUE", "SBATCH_OPEN_MODE", "SBATCH_SIGNAL")
"""Variables of sbatch that win over the lines of the script (sbatch(1), INPUT ENVIRONMENT VARIABLES)."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `outcome` is ok, failed or skipped."""

    name: str
    outcome: str
    detail: str
    hint: str = ""


def preflight(
    spec: JobSpec,
    script: str,
    *,
    environ: Mapping[str, str] | None = None,
    ask: Callable[[str | None], Partition | None] = partition,
) -> list[Check]:
    """Look at everything; raises nothing.

    Args:
        spec: the job.
        script: its rendered script.
        environ: where SBATCH_* variables may stand; the process's own by default.
        ask: gives a partition, None when there is none, SlurmError when Slurm does not answer.
    """
    checks = [
        _run_directory(spec),
        _log(spec),
        _program(spec),
        _environment(spec),
        _container(spec),
        _shell(spec, script),
    ]
    checks += _variables(os.environ if environ is None else environ)
    checks += _partition(spec, ask)
    return [check for check in checks if check is not None]


def _run_directory(spec: JobSpec) -> Check:
    path = Path(spec.run_directory).absolute()
    if spec.resources.array is None and RunPaths(path).done.exists():
        hint = "another run: in the job; or reopen it in the training (reopen=True) and remove DONE"
        return Check("run", "failed", f"{path} is finished (DONE exists): the job would end at once", hint)
    nearest = next(each for each in (path, *path.parents) if each.exists() or each.is_symlink())
    if not nearest.is_dir():
        return Check("run", "failed", f"{nearest} is no folder", "another run: in the job")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Check("run", "failed", f"{nearest} cannot be written to", "a folder of yours on a shared filesystem")
    return Check("run", "ok", str(path))


def _log(spec: JobSpec) -> Check | None:
    """Slurm makes no folder for a log: the job ends at once, and there is no log to say so."""
    if spec.log is None:
        return None
    folder = Path(spec.log).absolute().parent
    if "%" in str(folder):
        return Check("log", "skipped", f"{folder} depends on the job")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Check("log", "failed", f"{folder} is no folder that can be written to", f"mkdir -p {folder}")
    return Check("log", "ok", str(folder))


def _prepared(spec: JobSpec) -> str:
    """What may bring programs along that are not here now."""
    want = spec.environment
    brings = {"modules": want.modules, "conda": want.conda, "before_commands": want.before_commands,
              "PATH": "PATH" in want.variables}  # fmt: skip
    return ", ".join(name for name, given in brings.items() if given)


def _program(spec: JobSpec) -> Check:
    if spec.function is not None:
        return _importable(spec.function)
    if spec.container is not None:
        return Check("command", "skipped", "it is in the container")
    words = spec.words
    if spec.starter == "torchrun":
        return _file(words[0])
    path = _path_for(spec)
    if shutil.which(words[0], path=path) is None:
        if _prepared(spec):
            return Check("command", "skipped", f"{words[0]} is not here; it may come with {_prepared(spec)}")
        return Check("command", "failed", f"{words[0]} is not found", "its full path, or environment.modules")
    if re.fullmatch(r"python[0-9.]*", Path(words[0]).name) and len(words) > 1 and not words[1].startswith("-"):
        return _file(words[1])
    return Check("command", "ok", words[0])


def _path_for(spec: JobSpec) -> str:
    here = os.environ.get("PATH", os.defpath)
    return f"{spec.environment.venv}/bin{os.pathsep}{here}" if spec.environment.venv is not None else here


def _file(name: str) -> Check:
    if Path(name).is_file():
        return Check("command", "ok", name)
    return Check("command", "failed", f"there is no file {name} here", "submit from the folder that the paths begin in")


def _importable(function: str) -> Check:
    module = function.partition(":")[0]
    top = module.partition(".")[0]
    known = importlib.util.find_spec(top) is not None if top not in sys.modules else True
    if known or Path(f"{top}.py").is_file() or Path(top).is_dir():
        return Check("function", "ok", function)
    return Check("function", "failed", f"there is no module {top}", "submit from the folder that holds it")


def _environment(spec: JobSpec) -> Check | None:
    venv = spec.environment.venv
    if venv is not None:
        for name in ("activate", "python", "hpcresume"):
            if not Path(venv, "bin", name).exists():
                return Check("environment", "failed", f"{venv}/bin/{name} is missing", "pip install hpcresume there")
        return Check("environment", "ok", venv)
    if spec.function is None and shutil.which("hpcresume", path=_path_for(spec)) is None:
        if _prepared(spec):
            return Check("environment", "skipped", f"hpcresume is not here; it may come with {_prepared(spec)}")
        return Check("environment", "failed", "hpcresume is not on PATH", "environment.venv or environment.conda")
    return Check("environment", "ok", "hpcresume is on PATH")


def _container(spec: JobSpec) -> Check | None:
    if spec.container is None:
        return None
    if "://" in spec.container.image:
        return Check("container", "skipped", f"{spec.container.image} is fetched by {spec.container.runtime}")
    if not Path(spec.container.image).exists():
        return Check("container", "failed", f"there is no image {spec.container.image}", "container.image")
    if shutil.which(spec.container.runtime) is None:
        return Check("container", "skipped", f"no {spec.container.runtime} here; the nodes may have one")
    return Check("container", "ok", spec.container.image)


def _shell(spec: JobSpec, script: str) -> Check | None:
    """The raw lines of before_commands are the only ones that can be wrong."""
    bash = shutil.which("bash")
    if spec.function is not None or bash is None:
        return None
    try:
        done = subprocess.run(
            ["bash", "-n"], executable=bash, input=script.encode(), capture_output=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("script", "skipped", "bash -n gave no answer within 10 s")
    if done.returncode != 0:
        words = " ".join(done.stderr.decode(errors="replace").split())[:200]
        return Check("script", "failed", f"bash does not understand it: {words}", "environment.before_commands")
    return Check("script", "ok", "valid shell")


def _variables(environ: Mapping[str, str]) -> Iterator[Check]:
    for name in _OVERRIDING:
        if name in environ:
            yield Check("variables", "failed", f"{name} would win over the script's own line", f"unset {name}")


def _partition(spec: JobSpec, ask: Callable[[str | None], Partition | None]) -> Iterator[Check]:
    name = spec.resources.partition
    if name is not None and "," in name:
        yield Check("partition", "skipped", "several partitions: Slurm picks one")
        return
    try:
        found = ask(name)
    except SlurmError as error:
        yield Check("partition", "skipped", f"Slurm does not answer ({error.what})")
        return
    if found is None:
        what = "there is no default partition" if name is None else f"there is no partition {name}"
        yield Check("partition", "failed", what, "sinfo lists them")
        return
    broken = list(_limits(spec, found))
    yield from (Check("partition", "failed", what, hint) for what, hint in broken)
    if not broken:
        yield Check("partition", "ok", f"{found.name}" + _grace(spec, found))


def _limits(spec: JobSpec, found: Partition) -> Iterator[tuple[str, str]]:
    nodes = spec.resources.nodes
    for most, words in ((found.nodes, "has only"), (found.max_nodes, "allows only")):
        if most is not None and nodes > most:
            yield f"{found.name} {words} {most} nodes, and the job wants {nodes}", "resources.nodes"
            break
    if not found.up:
        yield f"{found.name} is not up: the job would wait", "another resources.partition"
    if found.max_time is None or spec.resources.time is None:
        return
    limit, most_seconds = parse_time_limit(spec.resources.time), _seconds(found.max_time)
    if most_seconds is not None and (limit is None or limit > most_seconds):
        what = f"{found.name} allows {found.max_time}, and the job wants {spec.resources.time}"
        yield what, "resources.time; the run comes back anyway"


def _seconds(text: str) -> float | None:
    try:
        return parse_time_limit(text)
    except ConfigError:
        return None


def _grace(spec: JobSpec, found: Partition) -> str:
    lead = parse_duration(spec.requeue.warning_lead)
    if found.grace and found.grace < lead:
        return f"; a preemption there leaves {found.grace} s, not the {lead:g} s of the warning"
    return ""
