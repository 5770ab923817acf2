"""When the slurmds of nodes began: one that is younger than a silent job was lost under it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from hpcresume.slurm.commands import Execute, Sleep, execute, patiently
from hpcresume.slurm.job_text import parse_time

__all__ = ["slurmd_starts"]

TIMEOUT = 10.0
_NODE_LIST = re.compile(r"[A-Za-z0-9_.,\[\]-]{1,65536}")
_NODE = re.compile(r"^NodeName=(\S{1,255})(?=\s)")
_START = re.compile(r"\sSlurmdStartTime=(\S{1,40})(?=\s|$)")


def slurmd_starts(
    node_list: str, *, execute: Execute = execute, sleep: Sleep = time.sleep, timeout: float = TIMEOUT
) -> Mapping[str, float]:
    """Seconds since the epoch, by node of a list (`n[1-4]`); those that Slurm tells. Never raises."""
    if not _NODE_LIST.fullmatch(node_list):
        return {}
    answer = patiently(["scontrol", "--oneliner", "show", "node", node_list], timeout, execute, sleep)
    found = {}
    for line in answer.out.splitlines() if answer.code == 0 else []:
        name, start = _NODE.search(line), _START.search(line)
        began = parse_time(start[1]) if start is not None else None
        if name is not None and began is not None:
            found[name[1]] = began
    return found
