"""What is known about when the scheduler will kill us, as the bytes of deadline.json. Pure."""

from __future__ import annotations

import json
import signal

from hpcresume.model import Cause
from hpcresume.policy.cause import Evidence, name_cause

__all__ = ["END_SECONDS", "deadline_facts"]

END_SECONDS = 5.0
"""From TERM to KILL at the least: max(KillWait, 5) (slurm.conf(5)); seen 4.6 s with KillWait=5."""


def deadline_facts(evidence: Evidence) -> bytes | None:
    """`{"unix": …, "source": …, "cause": …}`, or None while nothing is known.

    Slurm's EndTime counts once a warning came, Slurm's or our own; it is reckoned from the allocation's start, so what
    a script did before it started us is counted. A TERM or HUP is the end sequence itself, KILL follows.
    """
    ends = [s.at for s in evidence.signals if s.signal in (signal.SIGTERM, signal.SIGHUP)]
    if ends:
        return _facts(ends[0] + END_SECONDS, "end sequence", evidence)
    job = evidence.job[0] if evidence.job else None
    if job is None or job.end is None or evidence.warning is None:
        return None
    return _facts(job.end, "scontrol", evidence)


def _facts(unix: float, source: str, evidence: Evidence) -> bytes:
    cause = name_cause(evidence).cause
    named = cause.value if cause in (Cause.PREEMPTED, Cause.WALLTIME) else None
    return json.dumps({"unix": unix, "source": source, "cause": named}).encode() + b"\n"
