"""What `scontrol show config` says of a cluster. Owns the question and the reading of the answer, judges nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcresume.errors import SlurmError
from hpcresume.slurm.commands import TIMEOUT, Execute, execute, patiently
from hpcresume.slurm.job_text import parse_time
from hpcresume.slurm.queue import said

__all__ = ["Configuration", "parse_configuration", "read_configuration"]

_LINE = re.compile(r"([A-Za-z][A-Za-z_]{1,60}(?:\[\d{1,3}\])?) {0,40}= ?(.*)")
_NUMBER = re.compile(r"([0-9]{1,9})(?: (sec|min))?")
_TOLD = re.compile(r"Configuration data as of (\S+)")
_MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class Configuration:
    """The settings of slurm.conf as the controller has them, by name; what is `(null)` or empty is not there.

    Attributes:
        values: name → setting.
        told_at: the controller's clock when it answered, seconds since the epoch; None when it does not say.
        asked_at: our clock then.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    told_at: float | None = None
    asked_at: float = 0.0

    @property
    def version(self) -> str:
        """For instance `22.05.8`; "" when it does not say."""
        return self.values.get("SLURM_VERSION", "")

    def text(self, key: str) -> str:
        """One setting, "" when it is not there: older versions do not list all of them."""
        return self.values.get(key, "")

    def seconds(self, key: str) -> float | None:
        """One setting that is a time; None when it is not there or no number."""
        match = _NUMBER.fullmatch(self.text(key))
        return None if match is None else float(match[1]) * (60 if match[2] == "min" else 1)

    def words(self, key: str) -> frozenset[str]:
        """One setting that is a list with commas, in small letters; `a=3` is there as `a=3`."""
        return frozenset(word.strip().lower() for word in self.text(key).split(",") if word.strip())

    @property
    def sends_user_signal(self) -> bool:
        """Does a preemption send the signal of the job's own `--signal`, and not TERM?

        `SlurmctldParameters=preempt_send_user_signal` of older versions, `PreemptParameters=send_user_signal` of newer
        (slurm.conf(5)); newer ones still take the older name (seen on 24.11).
        """
        older = "preempt_send_user_signal" in self.words("SlurmctldParameters")
        return older or "send_user_signal" in self.words("PreemptParameters")


def read_configuration(*, timeout: float = TIMEOUT, execute: Execute = execute) -> Configuration:
    """Ask the controller.

    Raises:
        SlurmError: scontrol is missing, hangs, fails, or answers what is no configuration.
    """
    answer = patiently(["scontrol", "show", "config"], timeout, execute)
    if answer.code != 0:
        raise SlurmError(f"scontrol show config: {said(answer)}", where="scontrol")
    return parse_configuration(answer.out, asked_at=time.time())


def parse_configuration(text: str, *, asked_at: float = 0.0) -> Configuration:
    """Read what scontrol printed, at this time of our clock.

    Raises:
        SlurmError: it is no configuration.
    """
    found: dict[str, str] = {}
    for line in text[:_MAX_TEXT].splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match is not None and match[2] not in ("", "(null)"):
            found.setdefault(match[1], "".join(c if c.isprintable() else "?" for c in match[2])[:4096])
    if "SLURM_VERSION" not in found or len(found) < 5:
        what = f"scontrol show config answered what is no configuration ({len(text)} characters)"
        raise SlurmError(what, where="scontrol")
    told = _TOLD.search(text[:200])
    return Configuration(found, parse_time(told[1]) if told else None, asked_at)
