"""Many runs at once: finds them, looks at their files, asks Slurm about all of their jobs by one squeue."""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcresume.errors import RunDirectoryError, SlurmError
from hpcresume.io.hints import hint_for
from hpcresume.io.paths import RunPaths
from hpcresume.io.readers import read_each
from hpcresume.observe.glance import Glance, glance
from hpcresume.ops.chain_record import Chain, chain_of_stage, is_chain, read_chain
from hpcresume.ops.run_state import Known, RunState, judge
from hpcresume.ops.submitted import Submission, has_submission, read_submission
from hpcresume.slurm.queue import QueuedJob, ask_queue

__all__ = ["Overview", "Row", "as_json", "find_runs", "is_run", "overview", "row_as_json"]

DEPTH = 2
"""How far below a folder runs are looked for: runs/NAME and runs/GROUP/NAME."""

AskQueue = Callable[[Iterable[str]], Mapping[str, QueuedJob]]


@dataclass(frozen=True)
class Row:
    """One run: what its files tell, its job, its state; of a stage those before it that are not done."""

    name: str
    seen: Glance
    state: RunState
    job_id: str | None
    job: QueuedJob | None
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overview:
    """All of them, in the order in which they were named; and why Slurm could not be asked, if it could not."""

    rows: tuple[Row, ...]
    slurm_error: SlurmError | None = None


@dataclass(frozen=True)
class _Looked:
    seen: Glance
    submission: Submission | None
    chain: Chain | None = None

    @property
    def job_ids(self) -> tuple[str, ...]:
        """Jobs that the run may have now, the likeliest first."""
        newest = self.seen.newest
        holder = newest.holder.job_id if newest is not None and newest.holder is not None else None
        submitted = self.submission.job_id if self.submission is not None else None
        others = newest.other_jobs if newest is not None else ()
        ids = (submitted, holder, *others) if self.submitted else (holder, submitted, *others)
        return tuple(dict.fromkeys(each for each in ids if each is not None))

    @property
    def submitted(self) -> bool:
        """Was something submitted after the newest attempt began?"""
        if self.submission is None:
            return False
        newest = self.seen.newest
        return newest is None or self.submission.at > (newest.claimed_at or 0.0)


def is_run(path: Path) -> bool:
    """Whether a run lies at this very path, be it one that has only been submitted."""
    return RunPaths(path).run_json.is_file() or has_submission(path)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The runs that paths mean: themselves, or the runs in them, by name.

    Raises:
        RunDirectoryError: a path does not exist, cannot be read, or holds no run.
    """
    found: dict[Path, None] = {}
    for path in paths:
        try:
            inside = _stages(path) or (_tasks(path) or [path] if is_run(path) else _below(path, DEPTH))
        except OSError as error:
            what = f"this cannot be looked at: {error.strerror or error}"
            hint = hint_for(error.errno, otherwise="check the path")
            raise RunDirectoryError(what, where=str(error.filename or path), hint=hint) from error
        if not inside:
            hint = "the path of a run, or of a folder that holds runs"
            raise RunDirectoryError("there is no run here", where=str(path), hint=hint)
        found |= dict.fromkeys(inside)
    return list(found)


def _stages(path: Path) -> list[Path]:
    """The runs of the stages of a chain, in their order."""
    chain = read_chain(path) if is_chain(path) else None
    return [run for run in chain.runs if run.is_dir()] if chain is not None else []


def _tasks(stem: Path) -> list[Path]:
    """The runs of an array's tasks, where a path is that of the array: RUN-0, RUN-1, … beside RUN."""
    submission = read_submission(stem)
    if submission is None or not submission.array or RunPaths(stem).run_json.is_file():
        return []
    beside = [path for path in stem.parent.glob(f"{glob.escape(stem.name)}-*") if RunPaths(path).run_json.is_file()]
    numbered = {int(n): path for path in beside if (n := path.name[len(stem.name) + 1 :]).isdecimal()}
    return [numbered[number] for number in sorted(numbered)]


def _below(folder: Path, depth: int) -> list[Path]:
    with os.scandir(folder) as entries:
        children = sorted(Path(e.path) for e in entries if not e.name.startswith(".") and e.is_dir())
    found: list[Path] = []
    for child, one in zip(children, read_each(_may_be_run, children), strict=True):
        if one:
            found.append(child)
        elif stages := _stages_if_readable(child):
            found += stages
        elif depth > 1 and os.access(child, os.R_OK | os.X_OK):
            found += _below(child, depth - 1)
    tasks = {path.parent / path.name.rpartition("-")[0] for path in found if path.name.rpartition("-")[2].isdecimal()}
    # The stem of an array is no run: its tasks have theirs beside it, once they have begun.
    return [path for path in found if path not in tasks or RunPaths(path).run_json.is_file()]


def _stages_if_readable(path: Path) -> list[Path]:
    """A chain whose record is damaged is a folder with runs in it, like any other."""
    try:
        return _stages(path)
    except (OSError, RunDirectoryError):
        return []


def _may_be_run(path: Path) -> bool:
    """A folder that may not be looked into may be one: it gets a row that says so, and hides no other."""
    try:
        return is_run(path)
    except OSError:
        return True


def overview(
    runs: Sequence[Path], *, ask: AskQueue = ask_queue, now: Callable[[], float] = time.time, finished: bool = False
) -> Overview:
    """Look at runs. Slurm is asked once, and not at all when none of them has a job.

    Jobs of finished runs are asked for only with `finished`.
    """
    looked = read_each(_look, runs)
    wanted = [job_id for each in looked if finished or not each.seen.done for job_id in each.job_ids]
    queue: Mapping[str, QueuedJob] = {}
    error: SlurmError | None = None
    if wanted:
        try:
            queue = ask(wanted)
        except SlurmError as failed:
            error = failed
    moment = now()
    names = _short_names(runs)
    rows = [_row(name, each, queue, error is None, moment) for name, each in zip(names, looked, strict=True)]
    return Overview(tuple(rows), error)


def _look(run: Path) -> _Looked:
    try:
        submission = read_submission(run)
    except OSError:
        submission = None  # the run's own files tell enough
    chain = None
    if submission is not None and submission.stage:
        with contextlib.suppress(OSError, RunDirectoryError):
            chain = chain_of_stage(run)
    return _Looked(glance(run), submission, chain)


def _row(name: str, looked: _Looked, queue: Mapping[str, QueuedJob], asked: bool, now: float) -> Row:
    jobs = [queue[job_id] for job_id in looked.job_ids if job_id in queue]
    if not jobs and looked.submission is not None and looked.submission.array:
        jobs = [job for job in queue.values() if job.id.startswith(f"{looked.submission.job_id}_")]
    order = sorted(jobs, key=lambda job: (not job.active, job.over))
    job = order[0] if order else None
    job_id = job.id if job is not None else next(iter(looked.job_ids), None)
    newest = looked.seen.newest
    holder = newest.holder if newest is not None else None
    known = Known(
        job=job,
        job_id=job_id,
        asked=asked and bool(looked.job_ids),
        alive=holder.process_alive() if holder is not None and holder.job_id is None else None,
        submitted=looked.submitted,
        waits_for=_waits_for(looked),
        now=now,
    )
    state = judge(looked.seen, known)
    said = state.next
    if looked.chain is not None:
        said = said.replace(" CHAIN", f" {shlex.quote(str(looked.seen.root.parent))}")
    said = said.replace(" RUN", f" {shlex.quote(str(looked.seen.root))}")
    return Row(name, looked.seen, replace(state, next=said), job_id, job, known.waits_for)


def _waits_for(looked: _Looked) -> tuple[str, ...]:
    if looked.chain is None or looked.seen.done:
        return ()
    return tuple(looked.chain.not_done(looked.chain.after(looked.seen.root.name)))


def _short_names(runs: Sequence[Path]) -> list[str]:
    """Paths as short as they stay different: below the folder that they share."""
    if len(runs) == 1:
        return [runs[0].name or str(runs[0])]
    shared = os.path.commonpath([path.absolute().parent for path in runs])
    return [os.path.relpath(path.absolute(), shared) for path in runs]


def as_json(found: Overview, verified: Mapping[Path, bool]) -> dict[str, Any]:
    """The object that `hpcresume status --json` prints; its keys are documented in the verb's help."""
    error = found.slurm_error
    return {
        "slurm_error": None if error is None else {"what": error.what, "where": error.where, "try": error.hint},
        "runs": [row_as_json(row, verified.get(row.seen.root)) for row in found.rows],
    }


def row_as_json(row: Row, verified: bool | None = None) -> dict[str, Any]:
    """One run of `as_json`."""
    seen, newest, job = row.seen, row.seen.newest, row.job
    return {
        "run": str(seen.root),
        "state": row.state.state,
        "doing": row.state.doing,
        "next": row.state.next,
        "attempt": newest.attempt if newest is not None else None,
        "step": newest.step if newest is not None else None,
        "total_steps": newest.total if newest is not None else None,
        "generation": seen.generation,
        "generation_step": seen.generation_step,
        "committed_at": seen.committed_at,
        "generations": seen.held_generations,
        "waits_for": list(row.waits_for),
        "made_from": [dict(each) for each in seen.made_from],
        "verified": verified,
        "lost_steps": seen.lost,
        "warning_lead": newest.lead if newest is not None else None,
        "cause": newest.cause.value if newest is not None and newest.cause is not None else None,
        "decision": newest.decided if newest is not None and newest.decided else None,
        "job_id": row.job_id,
        "job_state": job.state if job is not None else None,
        "job_reason": job.reason if job is not None else None,
        "job_start": job.start if job is not None else None,
        "job_end": job.end if job is not None else None,
        "nodes": job.nodes if job is not None else None,
    }
