"""Which sbatch options belong to which key of a job, and times as Slurm writes them. Pure text."""

from __future__ import annotations

import re

from hpcresume.config.durations import parse_duration
from hpcresume.errors import ConfigError

__all__ = ["KEY_OF_OPTION", "UNLIMITED", "option_key", "parse_time_limit", "slurm_time"]

UNLIMITED = "UNLIMITED"

KEY_OF_OPTION: dict[str, str] = {
    "job-name": "name",
    "output": "log", "error": "log",
    "nodes": "resources.nodes",
    "ntasks": "resources.ntasks_per_node", "ntasks-per-node": "resources.ntasks_per_node",
    "cpus-per-task": "resources.cpus_per_task",
    "gpus-per-node": "resources.gpus_per_node",
    "gpus-per-task": "resources.gpus_per_task",
    "gres": "resources.gres",
    "mem": "resources.mem", "mem-per-cpu": "resources.mem_per_cpu",
    "time": "resources.time",
    "partition": "resources.partition",
    "account": "resources.account",
    "qos": "resources.qos",
    "constraint": "resources.constraint",
    "nodelist": "resources.nodelist",
    "exclude": "resources.exclude",
    "reservation": "resources.reservation",
    "exclusive": "resources.exclusive",
    "array": "resources.array",
    "requeue": "requeue.enabled", "no-requeue": "requeue.enabled",
    "signal": "requeue.warning_lead",
    "open-mode": "", "wrap": "", "parsable": "", "help": "", "usage": "", "version": "", "test-only": "",
}  # fmt: skip
"""Long option → the key that sets it; "" for those that would break the script or the submission."""

_EXACT = frozenset({"gpus"})
"""Real options of sbatch that are the beginning of another one."""

# sbatch(1), --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes[:seconds].
_WITH_DAYS = re.compile(r"(\d{1,5})-(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2}))?", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,6}):)?(\d{1,6}):(\d{1,2})", re.ASCII)


def option_key(option: str) -> str | None:
    """The key that an sbatch option belongs to (abbreviations too, as getopt_long takes them); None: it is free."""
    name = option.removeprefix("--").partition("=")[0]
    if name in KEY_OF_OPTION:
        return KEY_OF_OPTION[name]
    if name in _EXACT:
        return None
    return next((key for long, key in KEY_OF_OPTION.items() if long.startswith(name)), None)


def parse_time_limit(text: str, *, where: str = "time") -> float | None:
    """Seconds of a time limit in our form (4h, 1h30m) or in Slurm's (04:00:00, 1-12:00); None is no limit.

    Raises:
        ConfigError: neither. A bare number is refused: it is minutes to Slurm and seconds to most others.
    """
    if text.strip().upper() in (UNLIMITED, "INFINITE"):
        return None
    match = _WITH_DAYS.fullmatch(text.strip())
    if match:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    else:
        match = _CLOCK.fullmatch(text.strip())
        days, hours, minutes, seconds = (0, *(int(part or 0) for part in match.groups())) if match else (0, 0, 0, 0)
    if not match:
        if text.strip().isdecimal():
            raise ConfigError(f"{text!r} has no unit", where=where, hint=f"{text.strip()}min or {text.strip()}h")
        return parse_duration(text, where=where)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total <= 0:
        raise ConfigError(f"{text!r} is no time", where=where, hint="04:00:00")
    return float(total)


def slurm_time(seconds: float | None) -> str:
    """A time limit as sbatch takes it: HH:MM:SS, from a day on D-HH:MM:SS; whole seconds, rounded up."""
    if seconds is None:
        return UNLIMITED
    whole = -int(-seconds // 1)
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock
