"""Whether the programs of a job can be found before it is submitted: its command or function, and hpcresume itself.

Starts none of them. What modules, conda or shell lines may bring along is not judged.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from hpcresume.config.job_spec import JobSpec
from hpcresume.submit.check import Check

__all__ = ["environment", "program"]


def _prepared(spec: JobSpec) -> str:
    """What may bring programs along that are not here now."""
    want = spec.environment
    brings = {"modules": want.modules, "conda": want.conda, "before_commands": want.before_commands,
              "PATH": "PATH" in want.variables}  # fmt: skip
    return ", ".join(name for name, given in brings.items() if given)


def program(spec: JobSpec) -> Check:
    """Is what the ranks run here: a program, a script of Python, or the module of a function?"""
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
    known = top in sys.modules or _has(top)
    if known or Path(f"{top}.py").is_file() or Path(top).is_dir():
        return Check("function", "ok", function)
    return Check("function", "failed", f"there is no module {top}", "submit from the folder that holds it")


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def environment(spec: JobSpec, *, kept: bool = True) -> Check:
    """Is what runs hpcresume there: the command on PATH, a virtual environment, or the Python of a function?

    Args:
        spec: a checked job.
        kept: the job gets this environment, PATH with it.
    """
    if spec.function is not None:
        return _interpreter(spec)
    venv = spec.environment.venv
    if venv is not None:
        for name in ("activate", "python", "hpcresume"):
            if not Path(venv, "bin", name).exists():
                return Check("environment", "failed", f"{venv}/bin/{name} is missing", "pip install hpcresume there")
        return Check("environment", "ok", venv)
    if not kept:
        what = "the job does not get this PATH (--export, SBATCH_EXPORT); hpcresume must be on the one it gets"
        return Check("environment", "skipped", what)
    if shutil.which("hpcresume", path=_path_for(spec)) is None:
        if _prepared(spec):
            return Check("environment", "skipped", f"hpcresume is not here; it may come with {_prepared(spec)}")
        return Check("environment", "failed", "hpcresume is not on PATH", "environment.venv or environment.conda")
    return Check("environment", "ok", "hpcresume is on PATH")


def _interpreter(spec: JobSpec) -> Check:
    """A function runs under the Python that submits it: what was pickled must find its modules again."""
    name, want = "environment", spec.environment
    if not os.access(sys.executable or "", os.X_OK):
        return Check(name, "failed", f"there is no Python at {sys.executable!r}", "the Python of an environment")
    if not _has("submitit"):
        return Check(name, "failed", f"{sys.executable} has no submitit", "pip install 'hpcresume[submitit]'")
    if want.venv is not None and Path(want.venv).resolve() != Path(sys.prefix).resolve():
        what = f"the function runs under {sys.executable}, which submits it, not under {want.venv}"
        return Check(name, "failed", what, f"{want.venv}/bin/hpcresume submit, or leave environment.venv out")
    if want.conda is not None and want.conda not in (sys.prefix, Path(sys.prefix).name):
        return Check(name, "skipped", f"the function runs under {sys.executable}, whatever conda activates")
    return Check(name, "ok", f"{sys.executable} runs it")
