"""Opening and closing one attempt: ranks, run directory, claim, ledger, and the files the supervisor reads.

Owns what happens before anything is restored and after everything is saved. Knows no state and no step.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcresume.checkpoint.attempts import Holder, claim
from hpcresume.checkpoint.retire import sweep
from hpcresume.checkpoint.run import mark_done, open_run, reopen
from hpcresume.comm.choose import choose_ranks
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import vote
from hpcresume.comm.watchdog import Watchdog
from hpcresume.io.durable import write_durably
from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.model import Decision, Emit, Event, ignore_events
from hpcresume.session.ledger import Ledger, Metrics, Progress
from hpcresume.session.options import Options
from hpcresume.session.outcomes import RunFinished
from hpcresume.slurm.commands import job_alive
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["Attempt", "open_attempt", "say"]

SILENCE_OF_THE_DEAD: Final = 120.0
"""Seconds without a sign of life after which a holder that nothing else can be asked about counts as gone."""


def say(ranks: Ranks, text: str) -> None:
    """One line for people, once a job."""
    if ranks.rank == 0:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"hpcresume: {text}\n")
            sys.stderr.flush()


@dataclass
class Attempt:
    """A claimed attempt, as one rank sees it.

    Attributes:
        emit: this rank's own ledger: ledger.jsonl on rank 0, a file that exists only if needed on others.
        emit_once: for events that all ranks would report alike: rank 0's ledger.
        metrics, progress: on rank 0 only.
    """

    run: RunPaths
    number: int
    ranks: Ranks
    ledger: Ledger
    watchdog: Watchdog
    environ: Mapping[str, str]
    owns_ranks: bool
    metrics: Metrics | None = None
    progress: Progress | None = None
    slurm: SlurmEnvironment = field(default_factory=SlurmEnvironment)

    @property
    def paths(self) -> AttemptPaths:
        """Where its files are."""
        return self.run.attempt(self.number)

    @property
    def emit(self) -> Emit:
        """Into this rank's own ledger."""
        return self.ledger.emit

    @property
    def emit_once(self) -> Emit:
        """Into rank 0's ledger, from rank 0 only."""
        return self.ledger.emit if self.ranks.rank == 0 else ignore_events

    def decide(self, decision: Decision, reason: str, **facts: Any) -> None:
        """Rank 0: write durably what shall happen to the job, for the supervisor and for later readers."""
        if self.ranks.rank != 0:
            return
        fields = {"decision": decision.value, "reason": reason, "generation": None, "cause_hint": None, **facts}
        try:
            _write_json(self.paths.decision, fields)
            _tell_launcher(self.environ, "decision.json", fields)
        except OSError as error:
            self.emit(Event("decision-not-written", {"error": str(error)}))
            say(self.ranks, f"the decision could not be written: {error}")
        self.emit(Event("decision", fields))

    def mark_done(self, step: int, generation: str | None) -> None:
        """Collective. Write DONE durably; raises on all ranks when that fails."""
        failed: BaseException | None = None
        if self.ranks.rank == 0:
            try:
                mark_done(self.run, {"attempt": self.number, "step": step, "generation": generation})
            except OSError as error:
                failed = error
        with self.watchdog.guard("write DONE"):
            vote(self.ranks, "write DONE", failed)

    def sync(self) -> None:
        """Make ledger and metrics durable."""
        self.ledger.sync()
        if self.metrics is not None:
            self.metrics.sync()

    def close_files(self) -> None:
        """Close what this rank writes."""
        self.ledger.close()
        if self.metrics is not None:
            self.metrics.close()
        if self.progress is not None:
            self.progress.close()

    def leave_together(self, code: int) -> None:
        """Collective. The exit barrier: afterwards every rank may end, in any order."""
        self.emit_once(Event("exit", {"code": code}))
        self.close_files()
        with self.watchdog.guard("exit"):
            self.ranks.barrier()
        self.watchdog.close()
        if self.owns_ranks:
            self.ranks.close()


def open_attempt(options: Options, environ: Mapping[str, str]) -> Attempt:
    """Collective. Open the run and claim its next attempt.

    Raises:
        RunFinished: the run is done, and `reopen` was not asked for.
        RunError: the directory cannot be used, or another live job holds the run.
        RanksError: the ranks cannot be formed.
    """
    ranks = choose_ranks(options.comm, environ)
    owns = ranks is not options.comm
    watchdog = Watchdog(ranks, None, options.watchdog)
    with watchdog.guard("open the run"):
        run = open_run(options.run, create=True, ranks=ranks)
        _stop_if_done(run, ranks, options, environ, watchdog, owns)
        slurm = SlurmEnvironment.from_environ(environ)
        holder = Holder.here(slurm.job_id, slurm.restart_count)
        number = claim(run, holder=holder, ranks=ranks, alive=_Aliveness(run, slurm.job_id))
    paths = run.attempt(number)
    ledger = Ledger(paths.ledger if ranks.rank == 0 else paths.rank_ledger(ranks.rank))
    attempt = Attempt(run, number, ranks, ledger, watchdog, environ, owns, slurm=slurm)
    _arm_watchdog(attempt, options)
    if ranks.rank == 0:
        attempt.metrics, attempt.progress = Metrics(paths.metrics), Progress(paths.progress)
        _announce(attempt, holder)
    return attempt


def _arm_watchdog(attempt: Attempt, options: Options) -> None:
    """A new one: the directory for its marks and the ledger exist only now."""
    attempt.watchdog.close()
    directory = attempt.paths.roll_call
    attempt.watchdog = Watchdog(attempt.ranks, directory, options.watchdog, attempt.emit)


def _announce(attempt: Attempt, holder: Holder) -> None:
    """Rank 0: the first events of the attempt, and where the supervisor finds it."""
    run, number = attempt.run, attempt.number
    fields = {"attempt": number, "world_size": attempt.ranks.size, "backend": attempt.ranks.backend}
    attempt.emit(Event("claimed", {**fields, **asdict(holder)}))
    _record_predecessor(attempt)
    try:
        _tell_launcher(attempt.environ, "session.json", {"run": str(run.root), "attempt": number})
        sweep(run, attempt=number, emit=attempt.emit)
    except OSError as error:
        attempt.emit(Event("not-written", {"error": str(error)}))


def _record_predecessor(attempt: Attempt) -> None:
    """What the attempt before left behind, if no supervisor was there to say how it ended."""
    before = attempt.run.attempt(attempt.number - 1)
    if attempt.number == 1 or before.supervisor.exists():
        return
    try:
        decision = json.loads(before.decision.read_bytes()).get("decision")
    except (OSError, ValueError, AttributeError):
        decision = None
    attempt.emit(Event("predecessor", {"attempt": attempt.number - 1, "decision": decision}))


def _stop_if_done(
    run: RunPaths,
    ranks: Ranks,
    options: Options,
    environ: Mapping[str, str],
    watchdog: Watchdog,
    owns: bool,
) -> None:
    """Rank 0 looks and tells the others, so that a lagging directory cache cannot split the ranks."""
    done, failed = b"", None
    if ranks.rank == 0 and run.done.exists():
        done = b"done"
        if options.reopen:
            try:
                reopen(run)
                done = b""
            except OSError as error:
                failed = error
    vote(ranks, "reopen the run", failed)
    if not ranks.broadcast(done):
        return
    say(ranks, f"{run.root} is finished; nothing to do (reopen=True goes on with it)")
    if ranks.rank == 0:
        fields = {"decision": Decision.DONE.value, "reason": "the run was finished before", "run": str(run.root)}
        with contextlib.suppress(OSError):
            _tell_launcher(environ, "decision.json", fields)
    ranks.barrier()
    watchdog.close()
    if owns:
        ranks.close()
    raise RunFinished


class _Aliveness:
    """Does the holder of the newest attempt still run? Asked by rank 0 while it claims."""

    def __init__(self, run: RunPaths, own_job: str | None) -> None:
        self._run = run
        self._own_job = own_job

    def __call__(self, holder: Holder) -> bool:
        here = holder.process_alive()
        if here is not None:
            # This very process held it in an earlier session, which is closed: there is one at a time.
            return here and holder.pid != os.getpid()
        # Slurm would say that our own job lives, whichever of its steps held the run.
        asked = holder.job_id is not None and holder.job_id != self._own_job
        answer = job_alive(holder.job_id) if asked and holder.job_id is not None else None
        return self._silence() < SILENCE_OF_THE_DEAD if answer is None else answer

    def _silence(self) -> float:
        """Seconds since the newest attempt last wrote anything."""
        paths = self._run.attempt(max(self._run.attempt_numbers(), default=0))
        times = []
        for path in (paths.progress, paths.ledger, paths.claim):
            with contextlib.suppress(OSError):
                times.append(path.stat().st_mtime)
        return time.time() - max(times) if times else math.inf


def _tell_launcher(environ: Mapping[str, str], name: str, fields: Mapping[str, Any]) -> None:
    """Write into the supervisor's own directory, if a supervisor started us."""
    directory = environ.get("HPCRESUME_LAUNCH_DIR")
    if directory:
        _write_json(Path(directory) / name, fields)


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    write_durably(path, json.dumps(fields, allow_nan=False).encode() + b"\n")
