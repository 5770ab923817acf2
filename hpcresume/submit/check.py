"""One thing that was looked at before a submission, and what was found."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Check"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `outcome` is ok, failed, noted or skipped."""

    name: str
    outcome: str
    detail: str
    hint: str = ""
