"""The options of `hpcresume emulate` as one checked, frozen value. Parses text; starts nothing.

Durations are those of `hpcresume.config.durations`, zero and a bare number of seconds too. A moment is a duration since
the job's first start, or `step:40`: as soon as the run's progress shows that step finished.
"""

from __future__ import annotations

import re
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcresume.config.durations import parse_duration
from hpcresume.errors import ConfigError

__all__ = [
    "AtStep",
    "AtTime",
    "EmulatedJob",
    "Moment",
    "NodeKill",
    "Preemption",
    "RankKill",
    "SignalPlan",
    "TimetableEntry",
    "parse_moment",
    "parse_node_kill",
    "parse_preemption",
    "parse_rank_kill",
    "parse_seconds",
    "parse_signal",
]

_BARE_OR_ZERO = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)|0+\s*[a-z]{1,3}", re.ASCII)
_SIGNAL = re.compile(r"((?:[BR]{1,2}):)?([A-Za-z0-9]{1,12})(?:@([0-9]{1,5}(?:\.[0-9]{1,3})?))?")
"""`B:` the batch shell only; `R:` concerns reservations that overlap and changes nothing here (sbatch(1))."""
DEFAULT_LEAD = 60.0
"""Seconds before the end that `--signal` without `@` means (sbatch(1))."""
SLURM_VERSIONS = ("22.05", "24.11")
"""The two that were watched. They differ in what follows an exit inside the grace window (requeue since 24.05)."""


@dataclass(frozen=True)
class AtTime:
    """So many seconds after the job's first start."""

    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:g}s"


@dataclass(frozen=True)
class AtStep:
    """As soon as this step is finished."""

    step: int

    def __str__(self) -> str:
        return f"step:{self.step}"


Moment = AtTime | AtStep


@dataclass(frozen=True)
class Preemption:
    """Slurm takes the nodes back: warning, grace, end."""

    when: Moment

    def __str__(self) -> str:
        return f"--preempt {self.when}"


@dataclass(frozen=True)
class RankKill:
    """kill -9 of one rank, with no warning."""

    when: Moment
    rank: int

    def __str__(self) -> str:
        return f"--kill-rank {self.when}:{self.rank}"


@dataclass(frozen=True)
class NodeKill:
    """Every process of one node is gone at once, the supervisor too when it is the first node."""

    when: Moment
    node: int

    def __str__(self) -> str:
        return f"--kill-node {self.when}:n{self.node}"


TimetableEntry = Preemption | RankKill | NodeKill


@dataclass(frozen=True)
class SignalPlan:
    """The job's `--signal`: which signal, to the batch shell only (`B:`) or to the tasks, how long before the end."""

    number: int
    to_batch: bool
    lead: float = DEFAULT_LEAD

    @property
    def name(self) -> str:
        """Without the SIG, as sbatch takes it: `USR1`."""
        return signal.Signals(self.number).name.removeprefix("SIG")

    def __str__(self) -> str:
        return f"{'B:' if self.to_batch else ''}{self.name}@{self.lead:g}"


def _job_number() -> int:
    return 1_000_000 + secrets.randbelow(9_000_000)


@dataclass(frozen=True)
class EmulatedJob:
    """One job and what happens to it.

    Attributes:
        command: the user's program and its arguments, as after `srun`.
        nodes: emulated nodes, named n0, n1, …
        tasks_per_node: ranks on each.
        timetable: what happens when; every entry happens once in the life of the job.
        grace: seconds between a preemption's warning and the end (GraceTime).
        time_limit: seconds for each attempt, None without limit.
        signal: what `--signal` was given to sbatch, None without (then preemption sends TERM to the tasks).
        kill_wait: seconds from TERM to KILL (KillWait).
        requeue_delay: seconds from the end of an attempt to the start of the next.
        requeue: False is `sbatch --no-requeue`.
        max_attempts: stop after so many attempts.
        slurm: version whose requeue rule is followed, "22.05" or "24.11".
        keep_logs: directory for a log per attempt, None to keep none.
        launch_options: further options for the supervisor, before the `--`.
        user_signal: has the cluster `send_user_signal`, so that a preemption sends the job's own `--signal`?
        job_id: the number that the job sees; a new one each time, since a job's number says who holds a run.
        job_name: the name that the job sees.
    """

    command: tuple[str, ...]
    nodes: int = 1
    tasks_per_node: int = 1
    timetable: tuple[TimetableEntry, ...] = ()
    grace: float = 10.0
    time_limit: float | None = None
    signal: SignalPlan | None = SignalPlan(signal.SIGUSR1, to_batch=True)
    kill_wait: float = 5.0
    requeue_delay: float = 1.0
    requeue: bool = True
    max_attempts: int = 20
    slurm: str = "24.11"
    keep_logs: Path | None = None
    launch_options: tuple[str, ...] = ()
    user_signal: bool = True
    job_id: int = field(default_factory=_job_number)
    job_name: str = "emulated"

    def __post_init__(self) -> None:
        if not self.command:
            raise ConfigError("no command to run", hint="hpcresume emulate [options] -- python train.py")
        if ":" in self.command:
            raise ConfigError("mpiexec takes a lone ':' as the begin of another program", where=" ".join(self.command))
        _at_least(self.nodes, 1, "-N")
        _at_least(self.tasks_per_node, 1, "-n")
        _at_least(self.max_attempts, 1, "--max-attempts")
        if self.slurm not in SLURM_VERSIONS:
            hint = " or ".join(SLURM_VERSIONS)
            raise ConfigError(f"unknown Slurm version {self.slurm!r}", where="--slurm", hint=hint)
        if self.time_limit is not None and self.time_limit <= 0:
            raise ConfigError("the time limit must be positive", where="--time-limit", hint="--time-limit 60s")
        for entry in self.timetable:
            self._check_target(entry)

    def _check_target(self, entry: TimetableEntry) -> None:
        if isinstance(entry, RankKill) and entry.rank >= self.ntasks:
            raise ConfigError(f"there is no rank {entry.rank}", where=str(entry), hint=f"0 to {self.ntasks - 1}")
        if isinstance(entry, NodeKill) and entry.node >= self.nodes:
            raise ConfigError(f"there is no node n{entry.node}", where=str(entry), hint=f"n0 to n{self.nodes - 1}")

    @property
    def ntasks(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.tasks_per_node

    @property
    def node_list(self) -> str:
        """The nodes in Slurm's short form: `n0`, `n[0-3]`."""
        return "n0" if self.nodes == 1 else f"n[0-{self.nodes - 1}]"


def parse_seconds(text: str, option: str = "duration") -> float:
    """A duration in seconds, zero included.

    Raises:
        ConfigError: no such duration.
    """
    match = _BARE_OR_ZERO.fullmatch(text.strip())
    if match is not None:
        return float(match[1] or 0)
    return parse_duration(text, where=option)


def parse_moment(text: str, option: str = "moment") -> Moment:
    """`5s` or `step:40`.

    Raises:
        ConfigError: neither.
    """
    if text.startswith("step:"):
        return AtStep(_whole(text[5:], option, "step:40"))
    return AtTime(parse_seconds(text, option))


def parse_preemption(text: str) -> Preemption:
    """`5s` or `step:40`.

    Raises:
        ConfigError: neither.
    """
    return Preemption(parse_moment(text, "--preempt"))


def parse_rank_kill(text: str) -> RankKill:
    """`8s:2` or `step:40:2`: the moment, then the rank.

    Raises:
        ConfigError: no such thing.
    """
    when, rank = _split(text, "--kill-rank", "8s:2 or step:40:2")
    return RankKill(parse_moment(when, "--kill-rank"), _whole(rank, "--kill-rank", "8s:2"))


def parse_node_kill(text: str) -> NodeKill:
    """`12s:n1` or `step:40:n1`: the moment, then the node.

    Raises:
        ConfigError: no such thing.
    """
    when, node = _split(text, "--kill-node", "12s:n1 or step:40:n1")
    return NodeKill(parse_moment(when, "--kill-node"), _whole(node.removeprefix("n"), "--kill-node", "12s:n1"))


def parse_signal(text: str) -> SignalPlan | None:
    """What sbatch takes as `--signal`: `B:USR1@60`, `USR1@60`, `USR2`, `10@30`, or `none`.

    Raises:
        ConfigError: no such signal.
    """
    if text == "none":
        return None
    match = _SIGNAL.fullmatch(text)
    number = _signal_number(match[2]) if match else None
    if match is None or number is None:
        raise ConfigError(f"not a signal: {text!r}", where="--signal", hint="B:USR1@60, USR1@60, none")
    return SignalPlan(number, "B" in (match[1] or ""), float(match[3]) if match[3] else DEFAULT_LEAD)


def _signal_number(text: str) -> int | None:
    try:
        if text.isdecimal():
            return int(signal.Signals(int(text)))
        return int(signal.Signals["SIG" + text.upper().removeprefix("SIG")])
    except (KeyError, ValueError):
        return None


def _split(text: str, option: str, example: str) -> Sequence[str]:
    when, colon, target = text.rpartition(":")
    if not colon or not when or when == "step":
        raise ConfigError(f"a moment and a target are needed: {text!r}", where=option, hint=example)
    return when, target


def _whole(text: str, option: str, example: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise ConfigError(f"not a whole number: {text!r}", where=option, hint=example)
    return int(text)


def _at_least(value: int, least: int, option: str) -> None:
    if value < least:
        raise ConfigError(f"{option} must be at least {least}", where=option, hint=f"{option} {least}")
