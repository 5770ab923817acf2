"""Which sbatch options belong to which key of a job, and times as Slurm writes them. Pure text."""

from __future__ import annotations

import re

from hpcresume.config.durations import parse_duration
from hpcresume.errors import ConfigError

__all__ = [
    "KEY_OF_OPTION",
    "UNLIMITED",
    "long_option",
    "option_key",
    "option_of_variable",
    "parse_time_limit",
    "slurm_time",
    "why_not",
]

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
    "time": "resources.time", "time-min": "resources.time_min",
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
    "quiet": "", "wait": "", "chdir": "", "clusters": "",
}  # fmt: skip
"""Long option → the key that sets it; "" for those that would break the script or the submission."""

_WHY = {
    "open-mode": ("all attempts write into one log", "leave it out: the script appends"),
    "wrap": ("the script is made from the job", "the key command"),
    "parsable": ("sbatch is asked for it anyway", "leave it out: --json is for programs"),
    "help": ("nothing would be submitted", "sbatch --help"),
    "usage": ("nothing would be submitted", "sbatch --usage"),
    "version": ("nothing would be submitted", "sbatch --version"),
    "test-only": ("nothing would be submitted, and there is no number to record", "hpcresume submit --dry-run"),
    "quiet": ("sbatch would not say the job's number", "leave it out"),
    "wait": ("sbatch would stay until the job is over", "leave it out: squeue says how it goes"),
    "chdir": ("relative paths begin in the folder from which you submit", "cd there, and leave it out"),
    "clusters": (
        "whether a run has a job is asked of this cluster",
        "export SLURM_CLUSTERS=NAME: squeue follows it too",
    ),
}
"""Options that are nobody's → why not, and what to do instead."""

_SHORT = {
    "A": "account", "a": "array", "B": "extra-node-info", "b": "begin", "C": "constraint", "c": "cpus-per-task",
    "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "h": "help",
    "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "M": "clusters", "m": "distribution",
    "N": "nodes", "n": "ntasks", "O": "overcommit", "o": "output", "p": "partition", "Q": "quiet", "q": "qos",
    "S": "core-spec", "s": "oversubscribe", "t": "time", "u": "usage", "V": "version", "v": "verbose", "W": "wait",
    "w": "nodelist", "x": "exclude",
}  # fmt: skip
"""Letter → long option (sbatch(1), 22.05 and 24.11)."""

_EXACT = frozenset({"gpus"})
"""Real options of sbatch that are the beginning of another one."""

_VARIABLES = {
    "SBATCH_ARRAY_INX": "array", "SBATCH_MEM_PER_NODE": "mem", "SBATCH_REQ_SWITCH": "switches",
    "SBATCH_TIMELIMIT": "time",
} | {
    f"SBATCH_{name}": name.lower().replace("_", "-")
    for name in (
        "ACCOUNT", "ACCTG_FREQ", "BATCH", "CHDIR", "CLUSTERS", "COMMENT", "CONSTRAINT", "CONTAINER", "CORE_SPEC",
        "CPUS_PER_GPU", "DELAY_BOOT", "DISTRIBUTION", "ERROR", "EXCLUSIVE", "EXPORT", "GET_USER_ENV", "GPU_BIND",
        "GPU_FREQ", "GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "GRES", "GRES_FLAGS", "HINT", "IGNORE_PBS", "INPUT",
        "JOB_NAME", "MEM_BIND", "MEM_PER_CPU", "MEM_PER_GPU", "NETWORK", "NO_KILL", "NO_REQUEUE", "OPEN_MODE",
        "OUTPUT", "OVERCOMMIT", "PARTITION", "POWER", "PROFILE", "QOS", "REQUEUE", "RESERVATION", "SIGNAL",
        "SPREAD_JOB", "THREAD_SPEC", "THREADS_PER_CORE", "TRES_PER_TASK", "USE_MIN_NODES", "WAIT", "WAIT_ALL_NODES",
        "WCKEY",
    )
}  # fmt: skip
"""sbatch's input variables → the option that each stands for (sbatch(1), INPUT ENVIRONMENT VARIABLES; 22.05, 24.11)."""

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


def long_option(word: str) -> str:
    """An option as a person writes it, in its long form: `-t5` is `--time=5`; a long one stays as it is."""
    if word.startswith("--") or word[1:2] not in _SHORT:
        return word
    value = word[2:].removeprefix("=")
    return f"--{_SHORT[word[1]]}" + (f"={value}" if value else "")


def why_not(option: str) -> tuple[str, str] | None:
    """Why an option of sbatch cannot be given beside the job, and what to do instead; None: it can."""
    key = option_key(option)
    if key is None:
        return None
    if key:
        return "it has a key of its own", f"the key {key}"
    name = option.removeprefix("--").partition("=")[0]
    long = name if name in _WHY else next(each for each in _WHY if each.startswith(name))
    return _WHY[long]


def option_of_variable(variable: str) -> str | None:
    """The long option for which an environment variable of sbatch stands; None: it is none of its variables."""
    return _VARIABLES.get(variable)


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
