"""What a user may pass to `session`, checked. Knows nothing of what it is used for."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcresume.config.durations import parse_cadence, parse_duration
from hpcresume.errors import ConfigError, NonFiniteError
from hpcresume.policy.cadence import Cadence
from hpcresume.session.signals import signal_numbers

__all__ = ["Options", "check_total", "read_options"]


FROM_JOB = {
    "every": "HPCRESUME_CHECKPOINT_EVERY",
    "keep": "HPCRESUME_CHECKPOINT_KEEP",
    "read_back": "HPCRESUME_CHECKPOINT_VERIFY",
    "write_path": "HPCRESUME_CHECKPOINT_WRITE_PATH",
}
"""Option → the variable in which a batch script made from job.yaml carries its checkpoint section."""
MICRO_BATCHES = "HPCRESUME_MICRO_BATCHES"
"""Set by `hpcresume launch --micro-batches`; absent: 1."""


@dataclass(frozen=True)
class Options:
    """The checked options; see `hpcresume.session.session` for their meanings."""

    run: Path
    every: Cadence
    keep: int
    comm: object
    write_path: str
    read_back: str
    watchdog: float
    reaction: float
    save_failures: int
    reopen: bool
    signals: tuple[signal.Signals, ...]
    micro_batches: int = 1


def read_options(
    run: object,
    *,
    every: object,
    keep: object,
    comm: object,
    write_path: object,
    read_back: object,
    watchdog: object,
    reaction: object,
    save_failures: object,
    reopen: object,
    signals: Iterable[str],
) -> Options:
    """Check every option; what the job's own settings say (see FROM_JOB) wins over the call.

    Raises:
        ConfigError: names the option, and the nearest valid value where there is one.
    """
    every, keep = _from_job("every", every), _from_job("keep", keep)
    write_path, read_back = _from_job("write_path", write_path), _from_job("read_back", read_back)
    return Options(
        run=_path(run),
        every=parse_cadence(every),
        keep=_whole(keep, "keep", 1),
        comm=comm,
        write_path=_one_of(write_path, "write_path", ("auto", "mpiio", "posix")),
        read_back=_one_of(read_back, "read_back", ("all", "sample")),
        watchdog=math.inf if watchdog == "off" else parse_duration(watchdog, where="watchdog"),
        reaction=_seconds(reaction),
        save_failures=_whole(save_failures, "save_failures", 0),
        reopen=bool(reopen),
        signals=signal_numbers(signals),
        micro_batches=_micro_batches(),
    )


def check_total(total_steps: object) -> int:
    """The number of steps in the whole run.

    Raises:
        ConfigError: it is no whole number from 1.
    """
    return _whole(total_steps, "total_steps", 1)


def _from_job(option: str, given: object) -> object:
    text = os.environ.get(FROM_JOB[option], "")
    return (int(text) if text.isascii() and text.isdecimal() and option == "keep" else text) or given


def _micro_batches() -> int:
    """What the supervisor says, after ends for want of memory."""
    text = os.environ.get(MICRO_BATCHES, "1")
    return _whole(int(text) if text.isascii() and text.isdecimal() else text, MICRO_BATCHES, 1)


def _path(run: object) -> Path:
    if not isinstance(run, str | os.PathLike) or not os.fspath(run):
        raise ConfigError(f"{run!r} is no path", where="run", hint='"runs/my-training"')
    text = os.fspath(run)
    if isinstance(text, bytes) or any(ord(c) < 32 for c in text):
        raise ConfigError(f"{text!r} holds control characters or is bytes", where="run", hint="a plain path")
    return Path(text)


def _refuse_non_finite(value: object, where: str, hint: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise NonFiniteError(f"{value!r} is no finite number", where=where, hint=hint)


def _whole(value: object, where: str, least: int) -> int:
    _refuse_non_finite(value, where, f"{where}={least}")
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 10**12:
        raise ConfigError(f"{value!r} is no whole number from {least}", where=where, hint=f"{where}={least}")
    return value


def _one_of(value: object, where: str, names: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in names:
        raise ConfigError(f"{value!r} is unknown", where=where, hint=" or ".join(map(repr, names)))
    return value


def _seconds(reaction: object) -> float:
    if isinstance(reaction, str):
        return parse_duration(reaction, where="reaction")
    _refuse_non_finite(reaction, "reaction", "reaction=0.25")
    if isinstance(reaction, bool) or not isinstance(reaction, int | float) or not 0 <= reaction < math.inf:
        raise ConfigError(f"{reaction!r} is no number of seconds", where="reaction", hint="reaction=0.25")
    return float(reaction)
