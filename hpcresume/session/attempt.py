"""Opening and closing one attempt: ranks, run directory, claim, ledger, and the files the supervisor reads.

Owns what happens before anything is restored and after everything is saved. Knows no state and no step.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpcresume.checkpoint.attempts import Holder, claim, read_holder
from hpcresume.checkpoint.phases import together
from hpcresume.checkpoint.retire import sweep
from hpcresume.checkpoint.run import mark_done, open_run, reopen
from hpcresume.comm.choose import choose_ranks
from hpcresume.comm.last_resort import ends_unless_all_come
from hpcresume.comm.ranks import Ranks
from hpcresume.comm.vote import vote
from hpcresume.comm.watchdog import Watchdog
from hpcresume.console import tell
from hpcresume.errors import (
    CheckpointError,
    FencedError,
    FormatVersionError,
    HpcresumeError,
    NoSpaceError,
    RunDirectoryError,
)
from hpcresume.io.durable import write_durably
from hpcresume.io.files import files
from hpcresume.io.outputs import output_files
from hpcresume.io.paths import AttemptPaths, RunPaths
from hpcresume.model import Cause, Decision, Emit, Event, ignore_events
from hpcresume.policy.requeue import FINAL_CODES
from hpcresume.session.aliveness import Aliveness
from hpcresume.session.fence import Fence, fenced
from hpcresume.session.ledger import Ledger, Metrics, Progress
from hpcresume.session.options import Options
from hpcresume.session.outcomes import RunFinished, RunHeld
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["Attempt", "facts_of", "open_attempt", "refuse_to_launcher", "say"]


def say(ranks: Ranks, text: str) -> None:
    """One line for people, once a job."""
    if ranks.rank == 0:
        tell(f"hpcresume: {text}")


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
    fence: Fence
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
            _tell_launcher(self.environ, "decision.json", fields)
        except OSError as error:  # on a disk of its own: that one may be full while the run's is not, and vice versa
            say(self.ranks, f"the decision could not be given to the supervisor: {error}")
        try:
            _write_json(self.paths.decision, fields)
        except OSError as error:
            self.emit(Event("decision-not-written", {"error": str(error)}))
            say(self.ranks, f"the decision could not be written: {error}")
        self.emit(Event("decision", fields))

    def mark_done(self, step: int, generation: str | None) -> None:
        """Collective. Write DONE durably; raises on all ranks when that fails."""
        failed: BaseException | None = None
        if self.ranks.rank == 0:
            try:
                if max(self.run.attempt_numbers(), default=0) > self.number:
                    raise fenced(self.number)
                mark_done(self.run, {"attempt": self.number, "step": step, "generation": generation})
            except (OSError, FencedError) as error:
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
        self.stop_watching()
        if self.owns_ranks:
            self.ranks.close()

    def stop_watching(self) -> None:
        """Whatever this process does from now on is no part of the attempt."""
        self.watchdog.close()
        self.fence.close()


def open_attempt(options: Options, environ: Mapping[str, str]) -> Attempt:
    """Collective. Open the run and claim its next attempt.

    Raises:
        RunFinished: the run is done, and `reopen` was not asked for.
        RunHeld: it was held, and Slurm started the same job again.
        RunError: the directory cannot be used, or another live job holds the run.
        RanksError: the ranks cannot be formed.
    """
    with ends_unless_all_come("meet the other ranks", options.watchdog):
        ranks = choose_ranks(options.comm, environ)
    owns = ranks is not options.comm
    watchdog = Watchdog(ranks, None, options.watchdog)
    with watchdog.guard("open the run"):
        run = open_run(options.run, create=True, ranks=ranks)
        _stop_if_done(run, ranks, options, environ, watchdog, owns)
        slurm = SlurmEnvironment.from_environ(environ)
        _stop_if_held(run, ranks, slurm, environ, watchdog, owns)
        holder = Holder.here(slurm.job_id, slurm.restart_count)
        number = claim(run, holder=holder, ranks=ranks, alive=Aliveness(run, slurm.job_id))
    paths = run.attempt(number)
    ledger = Ledger(paths.ledger if ranks.rank == 0 else paths.rank_ledger(ranks.rank))
    fence = Fence(run.attempt(number + 1).claim, number, ranks.rank)
    attempt = Attempt(run, number, ranks, ledger, watchdog, environ, owns, fence, slurm=slurm)
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
    fields |= {"nodes": attempt.slurm.node_list} if attempt.slurm.node_list else {}
    attempt.emit(Event("claimed", {**fields, **asdict(holder), "log": output_files()}))
    _record_predecessor(attempt)
    _forget_refusal(attempt.environ)
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
    attempt.emit(Event("predecessor", {"attempt": attempt.number - 1, "decision": _decided(before)}))


def _decided(attempt: AttemptPaths) -> Any:
    """What the session of an attempt decided, None when it could not."""
    for path in (attempt.decision, *attempt.rank_decisions()):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return json.loads(path.read_bytes()).get("decision")
    return None


def _stop_if_done(
    run: RunPaths,
    ranks: Ranks,
    options: Options,
    environ: Mapping[str, str],
    watchdog: Watchdog,
    owns: bool,
) -> None:
    """Rank 0 looks and tells the others, so that a lagging directory cache cannot split the ranks."""
    done = b""
    with together(ranks, "look for DONE", RunDirectoryError):
        if ranks.rank == 0 and run.done.exists():
            if options.reopen:
                reopen(run)
            else:
                done = b"done"
    if not ranks.broadcast(done):
        return
    say(ranks, f"{run.root} is finished; nothing to do (reopen=True goes on with it)")
    fields = {"decision": Decision.DONE.value, "reason": "the run was finished before", "run": str(run.root)}
    _leave_early(fields, ranks, environ, watchdog, owns)
    raise RunFinished


def _stop_if_held(
    run: RunPaths,
    ranks: Ranks,
    slurm: SlurmEnvironment,
    environ: Mapping[str, str],
    watchdog: Watchdog,
    owns: bool,
) -> None:
    """A run is held until a person looks at it. Submitting a job anew is a person's doing; a restart of it is not."""
    why = b""
    if ranks.rank == 0 and environ.get("HPCRESUME_RELEASE") != "1" and _restarted_though_held(run, slurm):
        why = b"held: Slurm started the job again by itself; submit it anew, or use launch --release"
    vote(ranks, "look for a hold", None)
    why = ranks.broadcast(why)
    if not why:
        return
    say(ranks, f"{run.root} is {why.decode()}")
    _leave_early({"decision": Decision.HOLD.value, "reason": why.decode()}, ranks, environ, watchdog, owns)
    raise RunHeld(environ)


def _restarted_though_held(run: RunPaths, slurm: SlurmEnvironment) -> bool:
    newest = max(run.attempt_numbers(), default=0)
    before = read_holder(run, newest) if newest else None
    if before is None or before.job_id is None or before.job_id != slurm.job_id:
        return False
    return slurm.restart_count > before.restart and _was_held(run.attempt(newest))


def _was_held(attempt: AttemptPaths) -> bool:
    """What its supervisor decided counts (a budget is spent, say); where none came to that, what its session did.

    A job that was left held in the queue starts only when somebody releases it: then it is held no longer.
    """
    with contextlib.suppress(OSError):
        for line in reversed(attempt.supervisor.read_bytes().split(b"\n")):
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                if b'"held"' in line and (facts := json.loads(line)).get("event") == "held":
                    return bool(facts.get("result") != "accepted")
                if b'"decision"' in line and (facts := json.loads(line)).get("event") == "decision":
                    return bool(facts.get("decision") == Decision.HOLD.value)
    return bool(_decided(attempt) == Decision.HOLD.value)


def _leave_early(
    fields: Mapping[str, Any], ranks: Ranks, environ: Mapping[str, str], watchdog: Watchdog, owns: bool
) -> None:
    """Collective. Nothing was claimed: tell the supervisor, and let go of the ranks."""
    if ranks.rank == 0:
        with contextlib.suppress(OSError):
            _tell_launcher(environ, "decision.json", fields)
    ranks.barrier()
    watchdog.close()
    if owns:
        ranks.close()


def refuse_to_launcher(error: HpcresumeError, environ: Mapping[str, str]) -> None:
    """Tell the supervisor of an error that came before there was an attempt, and that the next start would meet."""
    if error.exit_code in FINAL_CODES or isinstance(error, NoSpaceError):
        facts = {"decision": Decision.HOLD.value, "reason": f"could not begin: {error}", **facts_of(error)}
        with contextlib.suppress(OSError):
            _tell_launcher(environ, "decision.json", facts)


def _forget_refusal(environ: Mapping[str, str]) -> None:
    """The program may have caught an error and tried again: what the supervisor was told of it holds no more."""
    directory = environ.get("HPCRESUME_LAUNCH_DIR")
    if directory:
        with contextlib.suppress(OSError):
            files().unlink(Path(directory) / "decision.json")


def facts_of(error: HpcresumeError) -> dict[str, Any]:
    """What a decision says of the error behind it: a cause, and the exit code."""
    of_storage = isinstance(error, CheckpointError | RunDirectoryError | FormatVersionError)
    cause = Cause.STORAGE if of_storage else Cause.CRASH
    return {"cause_hint": cause.value, "exit_code": error.exit_code}


def _tell_launcher(environ: Mapping[str, str], name: str, fields: Mapping[str, Any]) -> None:
    """Write into the supervisor's own directory, if a supervisor started us."""
    directory = environ.get("HPCRESUME_LAUNCH_DIR")
    if directory:
        _write_json(Path(directory) / name, fields)


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    write_durably(path, json.dumps(fields, allow_nan=False).encode() + b"\n")
