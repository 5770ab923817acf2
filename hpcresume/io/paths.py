"""The only authority on where things lie in a run directory. Lists directories; opens no file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AttemptPaths", "RunPaths", "generation_name", "parse_generation_name"]

_GENERATION = re.compile(r"g(\d{12})-a(\d{4,})")
_ATTEMPT = re.compile(r"\d{4,}")


def generation_name(step: int, attempt: int) -> str:
    """The name of a generation's directory: `g000000000120-a0002`."""
    return f"g{step:012d}-a{attempt:04d}"


def parse_generation_name(name: str) -> tuple[int, int] | None:
    """Step and attempt of a generation's name, or None when it is no such name."""
    match = _GENERATION.fullmatch(name)
    if match is None:
        return None
    step, attempt = int(match[1]), int(match[2])
    return (step, attempt) if generation_name(step, attempt) == name else None


@dataclass(frozen=True)
class AttemptPaths:
    """The files of one attempt. Each is written by exactly one process."""

    root: Path

    @property
    def claim(self) -> Path:
        """Who started this attempt (written by rank 0, right after the exclusive mkdir)."""
        return self.root / "claim.json"

    @property
    def start(self) -> Path:
        """Which generation the attempt starts from, and what was skipped (rank 0)."""
        return self.root / "start.json"

    @property
    def committed(self) -> Path:
        """Exists once the attempt has committed a generation, so that losing all of them is noticed (rank 0)."""
        return self.root / "committed"

    @property
    def ledger(self) -> Path:
        """Events of the session (rank 0)."""
        return self.root / "ledger.jsonl"

    @property
    def metrics(self) -> Path:
        """What `s.log` was given, a line a step (rank 0)."""
        return self.root / "metrics.jsonl"

    @property
    def supervisor(self) -> Path:
        """Events of the supervisor in the batch step."""
        return self.root / "supervisor.jsonl"

    @property
    def decision(self) -> Path:
        """What shall happen to the job (rank 0, after the commit)."""
        return self.root / "decision.json"

    @property
    def deadline(self) -> Path:
        """When the scheduler will kill us, as far as known (supervisor)."""
        return self.root / "deadline.json"

    @property
    def progress(self) -> Path:
        """The newest finished step: 8 bytes, little endian, rewritten in place (rank 0)."""
        return self.root / "progress"

    @property
    def roll_call(self) -> Path:
        """Directory in which waiting ranks leave their mark when a collective takes too long."""
        return self.root / "roll-call"

    def rank_ledger(self, rank: int) -> Path:
        """Events of a rank other than 0; exists only when there are any."""
        return self.root / f"ledger.{rank:05d}.jsonl"

    def rank_decision(self, rank: int) -> Path:
        """What a rank other than 0 has to say about the job; counts where rank 0 has decided nothing."""
        return self.root / f"decision.{rank:05d}.json"

    def rank_decisions(self) -> list[Path]:
        """Of all ranks other than 0 that have left one."""
        return sorted(self.root.glob("decision.[0-9]*.json"))


@dataclass(frozen=True)
class RunPaths:
    """The files of one run."""

    root: Path

    @property
    def run_json(self) -> Path:
        """Format version, run id, environment."""
        return self.root / "run.json"

    @property
    def submission(self) -> Path:
        """Number and making of the job that was submitted for the run last."""
        return self.root / "submit" / "job.json"

    @property
    def attempts(self) -> Path:
        """One directory an attempt."""
        return self.root / "attempts"

    @property
    def generations(self) -> Path:
        """One directory a committed generation; staging directories begin with a dot."""
        return self.root / "generations"

    @property
    def trash(self) -> Path:
        """Retired generations and abandoned staging directories, about to be unlinked."""
        return self.root / ".trash"

    @property
    def done(self) -> Path:
        """Exists when the run is finished."""
        return self.root / "DONE"

    def attempt(self, number: int) -> AttemptPaths:
        """The files of attempt `number` (from 1)."""
        return AttemptPaths(self.attempts / f"{number:04d}")

    def generation(self, step: int, attempt: int) -> Path:
        """The directory of a committed generation."""
        return self.generations / generation_name(step, attempt)

    def staging(self, step: int, attempt: int, nonce: str) -> Path:
        """A fresh staging directory beside the committed generations."""
        return self.generations / f".{generation_name(step, attempt)}.partial-{nonce}"

    def attempt_numbers(self) -> list[int]:
        """Numbers of the attempts that exist, ascending."""
        if not self.attempts.is_dir():
            return []
        return sorted(int(p.name) for p in self.attempts.iterdir() if _ATTEMPT.fullmatch(p.name))
