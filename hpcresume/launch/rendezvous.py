"""The private directory through which the supervisor and rank 0's session find each other. Small files only.

Owns HPCRESUME_LAUNCH_DIR and what is in it: `session.json` says which attempt of which run this start became,
`decision.json` what shall happen to the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcresume.errors import RunDirectoryError
from hpcresume.io.durable import make_directory, remove_tree
from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.io.scratch import SETTLED, Scratch
from hpcresume.io.wholeness import refusal
from hpcresume.model import Cause, Decision
from hpcresume.policy.cause import SessionDecision

__all__ = ["LAUNCH_DIR", "LAUNCH_PARENT", "RELEASE", "SUPERVISED", "Claimed", "Rendezvous"]

LAUNCH_DIR = "HPCRESUME_LAUNCH_DIR"
"""Names the directory to the ranks."""
LAUNCH_PARENT = "HPCRESUME_LAUNCH_PARENT"
"""Where to make the directory, when whoever starts the supervisor wants to look into it."""
SUPERVISED = "HPCRESUME_SUPERVISED"
"""Set to 1 for the ranks: the decision file counts, not their exit codes."""

RELEASE = "HPCRESUME_RELEASE"
"""Set to 1 for the ranks by `--release`: the session starts although its run was held."""


@dataclass(frozen=True)
class Claimed:
    """The attempt that this start became."""

    run: RunPaths
    number: int

    @property
    def paths(self) -> AttemptPaths:
        """The files of the attempt."""
        return self.run.attempt(self.number)


class Rendezvous:
    """One start's directory (0700)."""

    def __init__(self, directory: Path, *, keep: bool = False, scratch: Scratch | None = None) -> None:
        self.directory = directory
        self._keep = keep
        self._scratch = scratch
        self._claimed: Claimed | None = None

    @classmethod
    def create(cls, run: Path | None, environ: Mapping[str, str]) -> Rendezvous:
        """Make the directory: where LAUNCH_PARENT says, else inside an existing run (which every node sees),
        else in this machine's temporary directory, which rank 0 shares with the batch step. There, too, while the run's
        filesystem is away or full: the ranks find that out themselves, and then somebody is left to decide about it.

        Raises:
            RunDirectoryError: no directory can be made there.
        """
        parent = environ.get(LAUNCH_PARENT)
        try:
            if parent:
                return cls(Path(tempfile.mkdtemp(prefix="launch-", dir=parent)), keep=True)
            if run is not None:
                with contextlib.suppress(OSError):
                    if RunPaths(run).run_json.exists():
                        make_directory(run / "launch")
                        _check_whole(run / "launch")
                        return cls(Path(tempfile.mkdtemp(prefix="start-", dir=run / "launch")))
            scratch = Scratch("hpcresume-launch-")
            return cls(scratch.path, scratch=scratch)
        except OSError as error:
            where = str(error.filename or parent or run or tempfile.gettempdir())
            raise RunDirectoryError(f"no place for the launch directory: {error.strerror}", where=where) from error

    def environ(self) -> dict[str, str]:
        """What the ranks get in their environment."""
        return {LAUNCH_DIR: str(self.directory), SUPERVISED: "1"}

    def claimed(self) -> Claimed | None:
        """The attempt, as soon as rank 0 has claimed it."""
        if self._claimed is None:
            facts = _read_object(self.directory / "session.json")
            run, number = facts.get("run"), facts.get("attempt")
            if isinstance(run, str) and os.path.isabs(run) and isinstance(number, int) and number > 0:
                self._claimed = Claimed(RunPaths(Path(run)), number)
        return self._claimed

    def decision(self) -> SessionDecision | None:
        """What the session decided. Rank 0's file in the attempt is the authority; then come the other ranks', which
        may lie on nodes that do not see our directory, and the copy in it.
        """
        claimed = self.claimed()
        places = [] if claimed is None else [claimed.paths.decision, *_of_ranks(claimed.paths)]
        found = (_as_decision(_read_object(path)) for path in [*places, self.directory / "decision.json"])
        return next((decision for decision in found if decision is not None), None)

    def remove(self) -> None:
        """Remove the directory unless somebody else looks into it. Never raises: it is only litter."""
        if self._scratch is not None:
            self._scratch.remove()
        elif not self._keep:
            with contextlib.suppress(OSError):
                remove_tree(self.directory)

    def remove_older(self) -> None:
        """Remove what earlier starts of the run left beside this directory, whose supervisors were killed.

        Of those that had an attempt before ours: it is over, since ours could be claimed. Never raises.
        """
        claimed = self.claimed()
        if claimed is None or self.directory.parent != claimed.run.root / "launch":
            return
        for each in self.directory.parent.glob("start-*"):
            with contextlib.suppress(OSError):
                attempt = _read_object(each / "session.json").get("attempt")
                settled = time.time() - each.stat().st_mtime > SETTLED
                if each != self.directory and settled and isinstance(attempt, int) and attempt < claimed.number:
                    remove_tree(each)


def _check_whole(parent: Path) -> None:
    """Raise where a server of the filesystem is away: what is then written there may not be read, or hang."""
    refused = refusal(parent)
    if refused is not None:
        raise refused


def _of_ranks(attempt: AttemptPaths) -> list[Path]:
    """Listing the directory also makes an NFS client look for what another node has just put there."""
    try:
        return attempt.rank_decisions()
    except OSError:
        return []


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _as_decision(facts: Mapping[str, Any]) -> SessionDecision | None:
    try:
        decision = Decision(facts.get("decision"))
    except ValueError:
        return None
    step, generation, code = facts.get("step"), facts.get("generation"), facts.get("exit_code")
    return SessionDecision(
        decision=decision,
        reason=str(facts.get("reason") or ""),
        step=step if isinstance(step, int) else None,
        generation=generation if isinstance(generation, str) else None,
        cause_hint=_as_cause(facts.get("cause_hint")),
        exit_code=code if isinstance(code, int) else None,
    )


def _as_cause(value: object) -> Cause | None:
    try:
        return Cause(value)
    except ValueError:
        return None
