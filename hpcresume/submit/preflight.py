"""What can be known before a job is submitted: paths, programs, the script itself, and the partition's limits.

Each check ends as ok, failed, noted (said, and no reason to stop), or skipped with the reason; nothing is changed
anywhere.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hpcresume.config.job_spec import JobSpec
from hpcresume.config.job_variables import by_shell, unexpanded
from hpcresume.errors import SlurmError
from hpcresume.io.hints import hint_for
from hpcresume.io.paths import RunPaths
from hpcresume.slurm.submission import Partition, partition
from hpcresume.submit.check import Check
from hpcresume.submit.lead import lead_checks, maintenance_checks
from hpcresume.submit.overriding import keeps_environment, overriding_variables
from hpcresume.submit.partition_limits import broken_limits, grace_note
from hpcresume.submit.programs import environment, program

__all__ = ["preflight"]

_HIDING = ("CLEANENV", "CONTAIN", "CONTAINALL", "IPC", "NET", "PID")
"""Variables of apptainer, behind its prefix, that stand for options which a job may not have (job_rules.py)."""


def preflight(
    spec: JobSpec,
    script: str,
    *,
    options: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    ask: Callable[[str | None], Partition | None] = partition,
) -> list[Check]:
    """Look at everything; raises nothing.

    Args:
        spec: the job.
        script: its rendered script.
        options: of sbatch, beside the script.
        environ: where SBATCH_* variables may stand; the process's own by default.
        ask: gives a partition, None when there is none, SlurmError when Slurm does not answer.
    """
    here = os.environ if environ is None else environ
    looks: list[tuple[str, Callable[[], Check | None]]] = [
        ("run", lambda: _run_directory(spec)),
        ("log", lambda: _log(spec)),
        ("command" if spec.function is None else "function", lambda: program(spec)),
        ("environment", lambda: environment(spec, kept=keeps_environment(spec, options, here))),
        ("container", lambda: _container(spec, here)),
        ("script", lambda: _shell(spec, script)),
    ]
    checks = [_looked_at(each[0], functools.partial(_expansion, *each)) for each in _paths(spec)]
    wrong = {check.name for check in checks if check is not None}
    checks += [_looked_at(name, look) for name, look in looks if name not in wrong]
    checks += [Check("variables", "failed", what, hint) for what, hint in overriding_variables(spec, here)]
    checks += _unexpanded(spec)
    checks += lead_checks(spec)
    checks += _partition(spec, here, ask)
    return [check for check in checks if check is not None]


def _looked_at(name: str, look: Callable[[], Check | None]) -> Check | None:
    """What a look gives; a name that is too long, or a folder that may not be read, is a finding too."""
    try:
        return look()
    except OSError as error:
        what = f"{error.filename} cannot be looked at: {error.strerror}"
        return Check(name, "failed", what, hint_for(error.errno, otherwise="another path"))


def _paths(spec: JobSpec) -> Iterator[tuple[str, str, str]]:
    """Check, key and value of everything that is a path and nothing else."""
    image, venv = spec.container.image if spec.container is not None else None, spec.environment.venv
    values = [("run", "run", spec.run), ("log", "log", spec.log), ("environment", "environment.venv", venv),
              ("container", "container.image", image)]  # fmt: skip
    yield from ((check, key, value) for check, key, value in values if value is not None)


def _expansion(check: str, key: str, value: str) -> Check | None:
    """`~/runs` and `$SCRATCH/runs` are names like any other here; nobody means a folder that is called so."""
    if not re.match(r"~|.*\$[A-Za-z_{]", value) or Path(value).exists():
        return None
    hint = os.path.expandvars(os.path.expanduser(value))
    what = f"{value} is taken letter for letter: no shell puts a folder in the place of ~ or $NAME"
    return Check(check, "failed", what, f"{key}: {hint}" if hint != value else f"{key}: the full path")


def _unexpanded(spec: JobSpec) -> Iterator[Check]:
    """Said and not refused: a template or a password may hold a dollar sign that is meant."""
    for name, value in spec.environment.variables.items():
        found = unexpanded(value)
        if found is not None:
            what = f"environment.variables.{name} is {value!r}, letter for letter: {found} is not expanded"
            yield Check("variables", "noted", what, by_shell(name, value))


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
    if any(len(os.fsencode(part)) > os.pathconf(nearest, "PC_NAME_MAX") for part in path.relative_to(nearest).parts):
        return Check("run", "failed", f"{path} has a name that is too long for the filesystem", "a shorter run")
    return Check("run", "ok", str(path))


def _log(spec: JobSpec) -> Check | None:
    """Slurm makes no folder for a log: the job ends at once, and there is no log to say so."""
    if spec.log is None:
        return None
    if spec.log.endswith("/") or Path(spec.log).is_dir():
        return Check("log", "failed", f"{spec.log} is a folder", f"log: {spec.log.rstrip('/')}/%x-%j.out")
    folder = Path(spec.log).absolute().parent
    if "%" in str(folder):
        return Check("log", "skipped", f"{folder} depends on the job")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Check("log", "failed", f"{folder} is no folder that can be written to", f"mkdir -p {folder}")
    return Check("log", "ok", str(folder))


def _container(spec: JobSpec, environ: Mapping[str, str]) -> Check | None:
    if spec.container is None:
        return None
    for folder in (Path.cwd(), Path(spec.run_directory).resolve()):
        if re.search("[:,]", str(folder)):
            what = f"{spec.container.runtime} takes : and , in {folder} as separators"
            return Check("container", "failed", what, "submit from, and run in, a folder without them")
    given = {**environ, **spec.environment.variables}
    for name in (f"{prefix}_{each}" for prefix in ("APPTAINER", "SINGULARITY") for each in _HIDING):
        if given.get(name, "") not in ("", "0", "false"):
            what = f"{name} hides Slurm, MPI, hpcresume or the other ranks from a rank"
            return Check("container", "failed", what, f"unset {name}")
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


def _partition(
    spec: JobSpec, environ: Mapping[str, str], ask: Callable[[str | None], Partition | None]
) -> Iterator[Check]:
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
    broken = list(broken_limits(spec, found, environ))
    yield from (Check("partition", "failed", what, hint) for what, hint in broken)
    if not broken:
        yield Check("partition", "ok", found.name + grace_note(spec, found))
        yield from maintenance_checks(spec, found.name)
