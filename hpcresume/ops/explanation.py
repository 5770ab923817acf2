"""The story of a run with its present: what became of each attempt, what people did by hand, what happens next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcresume.errors import ConfigError, SlurmError
from hpcresume.io.paths import RunPaths
from hpcresume.launch.closing import look_back
from hpcresume.launch.hands import Hands
from hpcresume.model import Cause
from hpcresume.observe.story import Chapter, barren_starts, tell_story
from hpcresume.ops.by_hand import deeds
from hpcresume.ops.overview import overview
from hpcresume.ops.run_state import RunState
from hpcresume.ops.targets import typed
from hpcresume.ops.the_run import the_run

__all__ = ["Explanation", "as_json", "explain"]


@dataclass(frozen=True)
class Explanation:
    """Everything that `hpcresume why` says.

    Attributes:
        run: the run's directory.
        chapters: its attempts, or the one that was asked for.
        barren: starts that never became an attempt.
        by_hand: what people did through hpcresume.
        made_from: of a stage, what the stages before it had ended as, one line each.
        state: what it is doing now, and what is next.
        lost_steps: over all attempts.
        slurm_error: why Slurm could not be asked, if it had to be.
    """

    run: Path
    chapters: tuple[Chapter, ...]
    barren: tuple[str, ...]
    by_hand: tuple[str, ...]
    made_from: tuple[str, ...]
    state: RunState
    lost_steps: int
    slurm_error: SlurmError | None


def explain(path: Path | str, attempt: int | None = None) -> Explanation:
    """Tell the story of a run.

    Raises:
        RunError: there is no run, or it cannot be read.
        ConfigError: there is no such attempt.
    """
    run = the_run(path)
    with typed(run):
        chapters = tell_story(run)
        barren, by_hand = barren_starts(run), deeds(run)
    chosen = [each for each in chapters if attempt in (None, each.attempt)]
    if attempt is not None and not chosen:
        hint = f"1 to {chapters[-1].attempt}" if chapters else "the run has none yet"
        raise ConfigError(f"there is no attempt {attempt}", where=str(path), hint=hint)
    now = overview([Path(path)])
    lost = sum(each.lost_steps for each in chapters)
    row, error = now.rows[0], now.slurm_error
    with typed(run):
        chosen = [_ended_unseen(run, each, row.state) if each is chapters[-1] else each for each in chosen]
    made_from = tuple(_ancestor(each) for each in row.seen.made_from)
    return Explanation(Path(path), tuple(chosen), tuple(barren), tuple(by_hand), made_from, row.state, lost, error)


def _ended_unseen(run: RunPaths, newest: Chapter, state: RunState) -> Chapter:
    """Of an attempt whose job is over, and of whose end no file tells: what Slurm says is all that is known."""
    if newest.cause is not None or state.state != "ended":
        return newest
    found = look_back(run, Hands())
    cause, told = (Cause.UNKNOWN, ()) if found is None else (found.cause, found.evidence)
    evidence = (*newest.evidence, *told, f"nobody was left to record why it ended; {state.doing}")
    return replace(newest, cause=cause, evidence=tuple(dict.fromkeys(evidence)))


def _ancestor(facts: Mapping[str, Any]) -> str:
    known = [f"attempt {facts['attempt']}"] if facts.get("attempt") else []
    known += [str(facts["generation"])] if facts.get("generation") else []
    known += [f"job {facts['job_id']}"] if facts.get("job_id") else []
    return f"{facts.get('stage', '?')}" + (f" ({', '.join(known)})" if known else "")


def as_json(found: Explanation) -> dict[str, Any]:
    """The object that `hpcresume why --json` prints; its keys are documented in the verb's help."""
    error = found.slurm_error
    return {
        "run": str(found.run),
        "state": found.state.state,
        "doing": found.state.doing,
        "next": found.state.next,
        "slurm_error": None if error is None else {"what": error.what, "where": error.where, "try": error.hint},
        "lost_steps": found.lost_steps,
        "starts_without_attempt": list(found.barren),
        "by_hand": list(found.by_hand),
        "made_from": list(found.made_from),
        "attempts": [
            {
                "attempt": each.attempt,
                "cause": each.cause.value if each.cause is not None else None,
                "began": each.began,
                "ended": each.ended,
                "job_id": each.job_id,
                "start": each.start,
                "generations": list(each.generations),
                "lost_steps": each.lost_steps,
                "decision": each.decided or None,
                "story": list(each.sentences),
                "evidence": list(each.evidence),
            }
            for each in found.chapters
        ],
    }
