"""Runs with several attempts, made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcresume.checkpoint.attempts import Holder, claim
from hpcresume.checkpoint.restore import Restored, restore_newest
from hpcresume.checkpoint.run import open_run
from hpcresume.checkpoint.save import save_generation
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.single import SingleRanks
from hpcresume.io.paths import RunPaths
from hpcresume.model import Emit, Generation, ignore_events
from tests.checkpoint.states import small_state

__all__ = ["begin", "commit", "new_run", "restart"]


def new_run(root: Path, ranks: Ranks | None = None) -> RunPaths:
    """An open run without attempts."""
    return open_run(root, create=True, ranks=ranks or SingleRanks())


def begin(run: RunPaths, holder: Holder | None = None) -> int:
    """Claim the next attempt; whoever held the last one is dead."""
    return claim(run, holder=holder or Holder.here(None, 0), ranks=SingleRanks(), alive=lambda h: False)


def commit(run: RunPaths, attempt: int, step: int, parent: str | None = None, state: Any = None) -> Generation:
    """Save `small_state(step)` (or `state`) as an attempt's generation."""
    content = small_state(step) if state is None else state
    return save_generation(run, content, step=step, attempt=attempt, parent=parent, ranks=SingleRanks())


def restart(run: RunPaths, emit: Emit = ignore_events) -> tuple[int, Restored]:
    """Claim an attempt and restore, as a session does."""
    attempt = begin(run)
    return attempt, restore_newest(run, attempt=attempt, ranks=SingleRanks(), emit=emit)
