"""Plays Slurm for one submission: a cluster of the right size, the first job's timetable, its log shown live."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hpcresume.config.timetable import AtTime, NodeKill, Preemption, TimetableEntry
from hpcresume.emulate.cluster import Engine, nested
from hpcresume.emulate.follow import Followers, size_of
from hpcresume.emulate.getopt_long import OptionError
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.request import JobRequest
from hpcresume.emulate.result import AttemptEnd, EmulationResult, JobResult
from hpcresume.emulate.sbatch_request import on_nodes_here, read_submission
from hpcresume.emulate.settings import ClusterSettings
from hpcresume.errors import ConfigError
from hpcresume.model import Emit, Event, ignore_events

__all__ = ["Play", "fitting", "play", "read_words"]

HOSTS = Path("/etc/hosts")
LIMIT_REACHED = "JobHeldMaxAttempts"
Between = Callable[[AttemptEnd], None]


@dataclass(frozen=True)
class Play:
    """What is to be played.

    Attributes:
        request: the job.
        timetable: what happens to it (the first task of an array) when; every entry once in its life.
        max_attempts: stop when a job waits to be started so many times and once more.
        keep_logs: directory for a log per attempt of the first job, None to keep none.
        number: the first job's number, None for a random one.
        own_log: let the job write into a file that goes with the cluster, instead of where its options say.
    """

    request: JobRequest
    timetable: tuple[TimetableEntry, ...] = ()
    max_attempts: int = 20
    keep_logs: Path | None = None
    number: int | None = None
    own_log: bool = False


def read_words(words: Sequence[str], options: Sequence[str] = ()) -> JobRequest:
    """The job of `job.sbatch ARGUMENTS…` or `sbatch OPTIONS job.sbatch …`; `options` of sbatch come first.

    Raises:
        ConfigError: sbatch would refuse it, with its own words.
    """
    own = list(words[1:]) if words[0] == "sbatch" else list(words)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    try:
        return read_submission([*options, *own], environ, cwd=os.getcwd(), now=time.time()).request
    except OptionError as error:
        raise ConfigError(error.text.strip(), where=" ".join(words)[:200]) from None


def fitting(request: JobRequest, settings: ClusterSettings, *, nodes: int | None, cpus: int | None) -> ClusterSettings:
    """The settings with as many nodes and processors as the job needs, unless numbers are given."""
    tasks = request.ntasks_per_node or -(-(request.ntasks or 1) // request.least_nodes)
    at_once = 1
    if request.array is not None:
        at_once = min(request.array.limit or len(request.array.tasks), 4)
    numbers = [int(name[1:]) for name in request.nodelist if re.fullmatch(r"n[0-9]{1,3}", name)]
    least = max(request.least_nodes * at_once, *(number + 1 for number in numbers), 1)
    return dataclasses.replace(settings, nodes=nodes or least, cpus=cpus or max(2, tasks * request.cpus_of_a_task))


def play(
    what: Play,
    settings: ClusterSettings,
    *,
    emit: Emit = ignore_events,
    between_attempts: Between | None = None,
    output: BinaryIO | None = None,
) -> EmulationResult:
    """Run the job, and those that it submits, to their ends. Nothing of them outlives this call.

    Args:
        what: the job and its timetable.
        settings: the cluster.
        emit: told what happens, as it happens.
        between_attempts: called after an attempt that is requeued, while nothing of the job runs.
        output: gets what the jobs print.

    Raises:
        ConfigError: the cluster refuses the job, or we are inside an emulated cluster.
    """
    if nested(os.environ):
        raise ConfigError("this is an emulated cluster already", hint="use sbatch here")
    stage = _Stage(what, settings, emit, between_attempts, output)
    try:
        return stage.run()
    finally:
        stage.close()


class _Stage:
    """The loop and its state."""

    def __init__(
        self, what: Play, settings: ClusterSettings, emit: Emit, between: Between | None, output: BinaryIO | None
    ) -> None:
        self._what = what
        self._emit = emit
        self._between = between
        self._waiting = list(what.timetable)
        self._fired: list[TimetableEntry] = []
        self._followers = Followers(output)
        self._engine = Engine(settings, self._hear, what.number)
        self._start: float | None = None
        self._settings = settings
        self._first: Job | None = None
        self._attempts = self._logged = 0
        self._log = (Path(os.devnull), 0)

    def close(self) -> None:
        """End everything."""
        try:
            self._engine.end_jobs()
            self._followers.pump()
            if self._logged < self._attempts:
                self._keep_log()
        finally:
            self._engine.close()

    def run(self) -> EmulationResult:
        """Turn after turn."""
        request = self._what.request
        if self._what.own_log:
            request = dataclasses.replace(request, output=str(self._engine.home.directory / "logs" / "output"))
        request, strange = on_nodes_here(request, self._settings.names)
        try:
            first = self._engine.controller.submit(request)[0]
        except OptionError as error:
            raise ConfigError(error.text.strip(), where=self._what.request.command) from None
        self._first = first
        for note in filter(None, (strange, _unresolved(request, self._settings.names[0]))):
            self._tell("note", job=first.id, text=note)
        while not self._is_over():
            self._engine.turn()
            self._play_timetable(first)
            self._followers.pump()
        return self._finish(first)

    def _is_over(self) -> bool:
        controller = self._engine.controller
        if any(job.held == LIMIT_REACHED for job in controller.jobs.values()):
            return True
        return not controller.changed and controller.idle()

    # ---- the timetable

    def _play_timetable(self, job: Job) -> None:
        if job.running:
            self._start = self._start or time.monotonic()
            self._waiting = [entry for entry in self._waiting if not self._try(job, entry)]

    def _try(self, job: Job, entry: TimetableEntry) -> bool:
        """Make an entry come true if it is due and possible now."""
        if not self._due(job, entry):
            return False
        runner = self._engine.controller.runner
        if isinstance(entry, Preemption):
            done = runner.preempt(job)
        elif isinstance(entry, NodeKill):
            done = entry.node < len(job.nodes) and runner.kill_node(job.nodes[entry.node])
        else:
            done = runner.kill_rank(job, entry.rank)
        if done:
            self._fired.append(entry)
            job.fired.append(str(entry))
        return done

    def _due(self, job: Job, entry: TimetableEntry) -> bool:
        if isinstance(entry.when, AtTime):
            return time.monotonic() - (self._start or 0.0) >= entry.when.seconds
        return self._engine.controller.runner.step_of(job) >= entry.when.step

    # ---- events

    def _hear(self, event: Event) -> None:
        """Follow logs, and pass the event on."""
        fields = dict(event.fields)
        job = str(fields.get("job", ""))
        if event.name == "start":
            self._begin(job, fields)
        elif event.name == "end":
            self._followers.end(job)
            if self._first is not None and job == self._first.id:
                self._keep_log()
        self._emit(event)
        if event.name == "end" and fields["requeued"]:
            self._after(job)

    def _begin(self, job: str, fields: dict[str, object]) -> None:
        log, append = Path(str(fields["output"])), bool(fields["append"])
        self._followers.start(job, (log, Path(str(fields["error"]))), append=append)
        if self._first is not None and job == self._first.id:
            self._attempts += 1
            self._log = (log, size_of(log) if append else 0)

    def _keep_log(self) -> None:
        """The first job's log of one attempt, in a file of its own."""
        self._logged += 1
        parent = self._what.keep_logs
        if parent is None or self._first is None:
            return
        parent.mkdir(parents=True, exist_ok=True)
        kept = parent / f"attempt-{self._logged:04d}.log"
        log, offset = self._log
        with kept.open("wb") as target, contextlib.suppress(OSError), log.open("rb") as source:
            source.seek(offset)
            shutil.copyfileobj(source, target)
        if self._first.attempts:
            self._first.attempts[-1] = dataclasses.replace(self._first.attempts[-1], log=kept)

    def _after(self, number: str) -> None:
        """A job waits to be started again: let others use the time, or stop when it was started often enough."""
        job = self._engine.controller.find(number)[0]
        if len(job.attempts) >= self._what.max_attempts:
            job.held = LIMIT_REACHED
            return
        self._tell("pending", job=number, delay=self._settings.requeue_delay)
        if self._between is not None:
            self._between(job.attempts[-1])

    def _tell(self, name: str, **fields: object) -> None:
        self._emit(Event(name, {"at": self._engine.controller.runner.now(), **fields}))

    # ---- the end

    def _finish(self, first: Job) -> EmulationResult:
        jobs = tuple(_result(job) for job in self._engine.controller.jobs.values())
        result = EmulationResult(
            tuple(first.attempts), first.state, tuple(map(str, self._waiting)), jobs, "" if first.over else first.reason
        )
        for entry in result.never_fired:
            self._tell("never-fired", job=first.id, entry=entry)
        for job in self._engine.controller.jobs.values():
            if not job.over and job.held != LIMIT_REACHED:
                self._tell("left-pending", job=job.id, reason=job.reason)
        self._tell("over", job=first.id, state=result.state, attempts=len(first.attempts), exit_code=result.exit_code)
        return result


def _unresolved(request: JobRequest, node: str) -> str:
    """A note when the script may want to connect to a node by its name, as MASTER_ADDR often is, and cannot."""
    if "show hostname" not in request.script:
        return ""
    with contextlib.suppress(OSError):
        # Not asked of the resolver, which may wait for a server that is not there.
        if any(node in entry.split()[1:] for entry in HOSTS.read_text(errors="replace").splitlines()):
            return ""
    return f"the script asks for its nodes' names, and {node} is no address here; {HOSTS} can say: 127.0.0.1 {node}"


def _result(job: Job) -> JobResult:
    return JobResult(job.id, job.request.name, job.state, job.output(), tuple(job.attempts))
