"""Which environment variables a job may set: none that Slurm, the script or the supervisor sets, and no shell text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

__all__ = ["SUPERVISOR_VARIABLES", "broken_variables", "by_shell", "unexpanded"]

_READ_ONLY = frozenset({"BASHOPTS", "BASHPID", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
"""Variables that bash does not let anyone set (bash(1))."""
_OF_SLURM = ("SLURM_", "SLURMD_")
_CHECKPOINT = "HPCRESUME_CHECKPOINT_"
_JOB = "HPCRESUME_JOB_"
_STAGE = "HPCRESUME_STAGE_"
SUPERVISOR_VARIABLES = frozenset({
    "HPCRESUME_BEHIND", "HPCRESUME_LAUNCH_DIR", "HPCRESUME_LAUNCH_PARENT", "HPCRESUME_LOCAL_RANKS",
    "HPCRESUME_MICRO_BATCHES", "HPCRESUME_NODE", "HPCRESUME_NODE_INDEX", "HPCRESUME_RELEASE",
    "HPCRESUME_SUBMITIT_STARTS", "HPCRESUME_SUPERVISED",
})  # fmt: skip
"""What the supervisor, the ranks of one start and the emulator tell each other."""
_EXPANSION = re.compile(r"\$(?:\{?)([A-Za-z_]\w*)", re.ASCII)
_HOME = re.compile(r"(?:\A|:)~(?:[/:]|\Z)")


def broken_variables(variables: Mapping[str, str], keys: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """Key, what is wrong and what to try for every variable that would break the job.

    Args:
        variables: `environment.variables` of a job.
        keys: the names in its section `checkpoint`, each of which has a variable of its own.
    """
    for name, value in variables.items():
        reason = _why_not(name, keys) or _why_no_value(name, value)
        if reason is not None:
            yield (f"environment.variables.{name}", *reason)


def _why_not(name: str, keys: frozenset[str]) -> tuple[str, str] | None:
    if name in _READ_ONLY:
        return "bash lets nobody set it", "leave it out"
    if name.startswith(_OF_SLURM):
        # With another SLURM_JOB_ID the supervisor would ask about, and requeue, another job.
        what = "Slurm tells the job by it who it is, and it would be believed"
        return what, f"leave it out; a setting of srun's goes into environment.before_commands: - export {name}=VALUE"
    if name == "HPCRESUME_RUN":
        return "the script sets it, from the run directory", "the key run"
    if name.startswith(_STAGE):
        return "the script sets it, from the stages before", "the key after of a stage"
    if name.startswith(_CHECKPOINT):
        key = name.removeprefix(_CHECKPOINT).lower()
        if key not in keys:
            return "it belongs to no key", f"the keys of checkpoint: {', '.join(sorted(keys))}"
        return "it has a key of its own", f"the key checkpoint.{key}"
    if name.startswith(_JOB):
        return "it is read when the job is submitted, not in the job", f"export {name}=VALUE before hpcresume submit"
    if name in SUPERVISOR_VARIABLES:
        return "the supervisor and the ranks tell each other by it who they are", "leave it out"
    if name == "BASH_ENV":
        what = "every bash of the job, hpcresume's helpers among them, would run that file first"
        return what, "environment.before_commands: - source FILE"
    return None


def _why_no_value(name: str, value: str) -> tuple[str, str] | None:
    """`PATH: /opt/bin:$PATH` is that text and no search path: nothing would be found, not even mkdir."""
    found = unexpanded(value)
    if found is None or (name != "PATH" and name not in _EXPANSION.findall(value)):
        return None
    return f"{found} stays as it is: values are taken letter for letter", by_shell(name, value)


def unexpanded(value: str) -> str | None:
    """What a shell would have put something else in the place of: `$NAME`, `${NAME}` or a `~` in front; or None."""
    match = _EXPANSION.search(value)
    if match:
        return "$" + match[1]
    return "~" if _HOME.search(value) else None


def by_shell(name: str, value: str) -> str:
    """Where a shell would expand the value; in double quotes, as far as a `~` allows it."""
    word = value if value.startswith("~") else f'"{value}"'
    return f"environment.before_commands: - export {name}={word}"
