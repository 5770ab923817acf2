"""The session inside a training: signals, votes at step boundaries, saving, resuming, the tracked sampler.

Knows no Slurm command but one question (does a job live), no command line, and none of launch, observe, emulate.
"""

from __future__ import annotations

from hpcresume.session.outcomes import RunFinished, Stopped
from hpcresume.session.session import Session, session

__all__ = ["RunFinished", "Session", "Stopped", "session"]
