"""A small Slurm-like cluster on this machine: the context manager for tests and the engine of `hpcresume emulate`.

    with EmulatedCluster(nodes=2) as cluster:
        job = cluster.submit("job.sbatch")
        cluster.preempt(job)
        assert cluster.wait(job).state == "COMPLETED"

`cluster.environ` has the PATH under which sbatch, srun, scontrol, squeue, sacct, scancel and sinfo are found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hpcresume.emulate import census
from hpcresume.emulate.census import MARK
from hpcresume.emulate.commands.call import Call, ScriptText
from hpcresume.emulate.commands.sbatch import sbatch
from hpcresume.emulate.controller import Controller
from hpcresume.emulate.dispatch import Dispatcher
from hpcresume.emulate.home import Home
from hpcresume.emulate.jobs import Job
from hpcresume.emulate.result import AttemptEnd
from hpcresume.emulate.script_file import find, read
from hpcresume.emulate.server import Server
from hpcresume.emulate.settings import ClusterSettings
from hpcresume.emulate.variables import SLURM_CONF, SOCKET
from hpcresume.errors import ConfigError, SlurmError
from hpcresume.model import Emit, ignore_events

__all__ = ["EmulatedCluster", "Engine", "JobState", "nested", "state_of"]

TICK = 0.004
"""Seconds between looks while something runs: a step of a small training takes a few milliseconds."""
IDLE_TICK = 0.05


@dataclass(frozen=True)
class JobState:
    """A job as it stands.

    Attributes:
        id: `12`, or `12_3` for a task of an array.
        name: its name.
        state: Slurm's word for it.
        reason: why it waits, or how it ended.
        restarts: how often it was started again.
        exit_code: of its script, 128 + n when signal n killed it.
        output: its log file.
        attempts: its starts that are over.
    """

    id: str
    name: str
    state: str
    reason: str
    restarts: int
    exit_code: int
    output: Path
    attempts: tuple[AttemptEnd, ...]

    @property
    def over(self) -> bool:
        """Will it never start again by itself?"""
        return self.state not in ("PENDING", "RUNNING", "COMPLETING")


class Engine:
    """Controller, socket and directory, moved on by `turn`; one thread at a time."""

    def __init__(self, settings: ClusterSettings, emit: Emit = ignore_events, first: int | None = None) -> None:
        """Set everything up; `first` is the first job's number."""
        self.home = Home(settings.name, settings.slurm)
        with contextlib.ExitStack() as undo:
            undo.callback(self.home.close)
            self.controller = Controller(settings, self.home.place(), self.home.directory / "spool", emit, first)
            self.dispatcher = Dispatcher(self.controller, self.home.directory / "steps", self.home.mpiexec)
            self.server = Server(self.home.socket, self.dispatcher.handle)
            undo.pop_all()

    def turn(self, timeout: float | None = None) -> None:
        """Serve, then look after the jobs."""
        self.controller.turn()
        self.dispatcher.turn()
        busy = any(job.running for job in self.controller.jobs.values())
        self.server.serve((TICK if busy else IDLE_TICK) if timeout is None else timeout)

    def environ(self, outer: Mapping[str, str]) -> dict[str, str]:
        """An environment in which Slurm's commands are those of this cluster."""
        kept = {k: v for k, v in outer.items() if not k.startswith(("SLURM_", "SBATCH_", "HPCRESUME_LAUNCH"))}
        path = f"{self.home.programs}{os.pathsep}{outer.get('PATH', os.defpath)}"
        return {**kept, "PATH": path, SOCKET: str(self.home.socket), SLURM_CONF: str(self.home.configuration)}

    def end_jobs(self) -> None:
        """KILL all that runs."""
        everything = census.Census(self.home.token, lambda _: (1,))
        census.kill(everything.members)
        for job in self.controller.jobs.values():
            if job.batch is not None:
                job.batch.wait()

    def close(self) -> None:
        """End all jobs at once and remove everything."""
        self.end_jobs()
        self.server.close()
        self.home.close()


class EmulatedCluster:
    """A cluster for a `with` block; its own thread moves it on."""

    def __init__(
        self, settings: ClusterSettings | None = None, *, emit: Emit = ignore_events, **changes: object
    ) -> None:
        """Either `settings`, or its fields by name: `EmulatedCluster(nodes=2, slurm="22.05")`.

        Raises:
            ConfigError: a setting is wrong, or we are inside an emulated cluster already.
        """
        if SOCKET in os.environ:
            raise ConfigError("this is an emulated cluster already", where=os.environ[SOCKET])
        self.settings = ClusterSettings(**changes) if settings is None else settings  # type: ignore[arg-type]
        self._emit = emit
        self._engine: Engine | None = None
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> EmulatedCluster:
        """Start it."""
        self._engine = Engine(self.settings, self._emit)
        self._thread = threading.Thread(target=self._live, name="emulated-cluster", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything; nothing is left behind."""
        self._stop.set()
        engine = self.engine
        engine.server.wake()
        assert self._thread is not None
        self._thread.join()
        engine.close()
        self._engine = None

    def _live(self) -> None:
        engine = self.engine
        try:
            while not self._stop.is_set():
                with self._lock:
                    engine.turn(0)
                    busy = any(job.running for job in engine.controller.jobs.values())
                engine.server.wait(TICK if busy else IDLE_TICK)
        except BaseException as failure:
            self._failure = failure
            # Nobody shall wait for an answer that never comes.
            engine.server.hang_up()
            raise

    @property
    def engine(self) -> Engine:
        """What runs it."""
        if self._engine is None:
            raise SlurmError("the emulated cluster is not running", hint="with EmulatedCluster() as cluster: …")
        return self._engine

    @property
    def environ(self) -> dict[str, str]:
        """Our environment with Slurm's commands of this cluster first on PATH."""
        return self.engine.environ(os.environ)

    def run(self, *words: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it, for instance `run("squeue", "-h")`.

        Raises:
            CalledProcessError: it failed and `check` is set.
        """
        return subprocess.run(
            words, env=self.environ, check=check, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd
        )

    def submit(self, *words: str | Path, cwd: Path | None = None) -> str:
        """Submit as with `sbatch WORDS…`; return the job's id.

        Raises:
            SlurmError: sbatch refuses it.
        """
        here = str(cwd or Path.cwd())
        call = Call("sbatch", ["--parsable", *map(str, words)], here, self.environ)
        with self._lock:
            reply = sbatch(call, self.engine.controller)
            if reply.wanted is not None:
                path = None if reply.wanted.name is None else find(reply.wanted.name, reply.wanted.directory, here)
                call = dataclasses.replace(call, script=ScriptText(read(path), path))
                reply = sbatch(call, self.engine.controller)
        self.engine.server.wake()
        if reply.code:
            raise SlurmError(reply.err.strip())
        return reply.out.strip()

    def preempt(self, job: str) -> None:
        """Take a job's nodes back: its warning, its grace, its end.

        Raises:
            SlurmError: it does not run.
        """
        self._each(job, self.engine.controller.runner.preempt, "does not run")

    def kill_rank(self, job: str, rank: int) -> None:
        """KILL one rank.

        Raises:
            SlurmError: there is none.
        """
        self._each(job, lambda each: self.engine.controller.runner.kill_rank(each, rank), f"has no rank {rank}")

    def kill_node(self, name: str) -> None:
        """Lose a node, and everything on it.

        Raises:
            SlurmError: there is none of this name.
        """
        with self._lock:
            if name not in self.engine.controller.nodes:
                raise SlurmError(f"there is no node {name}", hint=", ".join(self.settings.names))
            self.engine.controller.lose_node(name)

    def _each(self, text: str, act: Callable[[Job], bool], refusal: str) -> None:
        with self._lock:
            done = [act(job) for job in self._find(text) if job.running]
        if not any(done):
            raise SlurmError(f"job {text} {refusal}")

    def _find(self, text: str) -> list[Job]:
        found = self.engine.controller.find(text)
        if not found:
            raise SlurmError(f"there is no job {text}")
        return found

    def jobs(self) -> list[JobState]:
        """Every job, in the order of submission."""
        with self._lock:
            return [state_of(job) for job in self.engine.controller.jobs.values()]

    def job(self, text: str) -> JobState:
        """One job.

        Raises:
            SlurmError: there is none.
        """
        with self._lock:
            return state_of(self._find(text)[0])

    def wait(self, *texts: str, timeout: float = 600.0) -> JobState:
        """Wait until these jobs (every job when none is named) are over; give the first one's state.

        Raises:
            SlurmError: they are not over within `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while True:
            with self._lock:
                found = [j for t in texts for j in self._find(t)] or list(self.engine.controller.jobs.values())
                if all(job.over for job in found):
                    return state_of(found[0])
            if self._failure is not None:
                raise SlurmError(f"the emulated cluster failed: {self._failure}") from self._failure
            if time.monotonic() > until:
                states = ", ".join(f"{job.id} {job.state} ({job.reason})" for job in found if not job.over)
                raise SlurmError(f"not over after {timeout:g} s: {states}")
            time.sleep(0.01)


def state_of(job: Job) -> JobState:
    """What is to be known of a job."""
    code = 128 + job.killed_by if job.killed_by else job.exit_code
    return JobState(
        job.id, job.request.name, job.state, job.reason, job.restarts, code, Path(job.output()), tuple(job.attempts)
    )


def nested(environ: Mapping[str, str]) -> bool:
    """Are we inside an emulated cluster?"""
    return SOCKET in environ or MARK in environ
