"""When the slurmds of nodes began: one that is younger than a silent job was lost under it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from hpcresume.slurm.commands import Execute, Sleep, execute, show_nodes
from hpcresume.slurm.job_text import parse_time

__all__ = ["slurmd_starts"]

TIMEOUT = 10.0
_START = re.compile(r"\sSlurmdStartTime=(\S{1,40})(?=\s|$)")


def slurmd_starts(
    node_list: str, *, execute: Execute = execute, sleep: Sleep = time.sleep, timeout: float = TIMEOUT
) -> Mapping[str, float]:
    """Seconds since the epoch, by node of a list (`n[1-4]`); those that Slurm tells. Never raises."""
    found = {}
    for name, line in show_nodes(node_list, timeout=timeout, execute=execute, sleep=sleep).items():
        start = _START.search(line)
        began = parse_time(start[1]) if start is not None else None
        if began is not None:
            found[name] = began
    return found
