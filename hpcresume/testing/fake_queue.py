"""The jobs and nodes of the fake Slurm: who waits, who runs, who is being ended, and what each answer shows of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["FakeJob", "FakeNode", "FakeQueue"]

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"})


@dataclass
class FakeNode:
    """A node. `kind` is `cpus|memory|features|gres`, as sinfo's `%c|%m|%f|%G` prints it."""

    name: str
    kind: str = "2|2000|(null)|(null)"
    up: bool = True
    used_by: str | None = None


@dataclass
class FakeJob:
    """A job. Times are seconds since the epoch.

    Attributes:
        needs: nodes that it asks for, the least and the most.
        requeue: may it be requeued (`--requeue`)?
        restarts: how often it was started before.
        begin: it starts no sooner.
        held: why it waits for a release, "" when it does not.
        depends: (kind, job) of its dependency: afterany, afterok or afternotok.
        leaving: it is being ended; `gone` says when its processes are dead.
        comes_back: once they are, it waits again.
        starts: how often its script ran.
        directory: where its script begins.
        command: the script's path, as sbatch was given it.
    """

    id: str
    name: str
    script: str
    partition: str
    needs: tuple[int, int]
    tasks_per_node: int = 1
    requeue: bool = True
    state: str = "PENDING"
    reason: str = "None"
    restarts: int = 0
    begin: float = 0.0
    held: str = ""
    depends: tuple[str, str] | None = None
    excluded: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    comment: str = ""
    nodes: tuple[str, ...] = ()
    submitted: float = 0.0
    start: float | None = None
    limit: float | None = None
    end: float | None = None
    preempted_at: float | None = None
    exit_code: int | None = None
    leaving: bool = False
    comes_back: bool = False
    starts: int = 0
    options: tuple[str, ...] = field(default=())
    directory: str = "/home/user"
    command: str = "/job.sh"

    @property
    def over(self) -> bool:
        """Will it never start again?"""
        return self.state in ENDED

    @property
    def running(self) -> bool:
        """Has it nodes, and is nobody ending it?"""
        return self.state == "RUNNING"


class FakeQueue:
    """The cluster.

    Attributes:
        now: the clock, seconds since the epoch.
        requeue_delay: seconds until a requeued job may start (cred_expire, slurm.conf(5): 120 by default).
        lag: called for each squeue; how many seconds old its answer is (sites put caches before it).
        job_requeue: JobRequeue of slurm.conf(5): what jobs get that do not say.
        exits_come_back: a job that exits by itself while it is being preempted is requeued (from 24.05 on).
        longest: MaxTime of partitions that have one, as Slurm writes it.
        nodes: by name.
        jobs: by number, those that are over too.
    """

    def __init__(
        self,
        nodes: int = 4,
        *,
        now: float = 1_700_000_000.0,
        requeue_delay: float = 120.0,
        lag: Callable[[], float] = lambda: 0.0,
        job_requeue: bool = True,
        exits_come_back: bool = False,
        partitions: Sequence[str] = ("low", "high"),
        longest: Mapping[str, str] | None = None,
    ) -> None:
        self.now = now
        self.requeue_delay = requeue_delay
        self.lag = lag
        self.job_requeue = job_requeue
        self.exits_come_back = exits_come_back
        self.partitions = tuple(partitions)
        self.longest = dict(longest or {})
        self.nodes = {f"n{i}": FakeNode(f"n{i}") for i in range(1, nodes + 1)}
        self.jobs: dict[str, FakeJob] = {}
        self._past: dict[str, list[tuple[float, FakeJob]]] = {}
        self._number = 100

    # ---- the clock and the past

    def advance(self, seconds: float) -> None:
        """Turn the clock on. Also what to hand to code that sleeps."""
        self.now += max(0.0, seconds)

    def seen(self, job_id: str) -> FakeJob | None:
        """The job as squeue shows it now: as it was `lag()` seconds ago, or as it was first."""
        known = self._past.get(job_id)
        if not known:
            return None
        at = self.now - self.lag()
        return next((job for when, job in reversed(known) if when <= at), known[0][1])

    def keep(self) -> None:
        """Remember how all jobs are, for questions that are answered late."""
        for job in self.jobs.values():
            known = self._past.setdefault(job.id, [])
            if not known or known[-1][1] != job:
                known.append((self.now, copy.copy(job)))

    # ---- jobs

    def submit(
        self, script: str, *, name: str = "job", nodes: int | tuple[int, int] = 1, tasks_per_node: int = 1,
        partition: str | None = None, requeue: bool | None = None, comment: str = "", begin: float = 0.0,
        limit: float | None = None, excluded: Sequence[str] = (), depends: tuple[str, str] | None = None,
        options: Sequence[str] = (), directory: str = "/home/user", command: str = "/job.sh",
    ) -> FakeJob:  # fmt: skip
        """A job in the queue. `limit` is its time limit in seconds, `begin` an instant."""
        self._number += 1
        job = FakeJob(
            id=str(self._number), name=name, script=script, partition=partition or self.partitions[0],
            needs=nodes if isinstance(nodes, tuple) else (nodes, nodes), tasks_per_node=tasks_per_node,
            requeue=self.job_requeue if requeue is None else requeue, comment=comment, begin=begin, limit=limit,
            excluded=tuple(excluded), depends=depends, submitted=self.now, options=tuple(options),
            directory=directory, command=command,
        )  # fmt: skip
        self.jobs[job.id] = job
        self.keep()
        return job

    def start_due(self) -> list[FakeJob]:
        """Start every waiting job that can start now, in the order of their numbers; return them."""
        started = []
        for job in sorted(self.jobs.values(), key=lambda each: int(each.id)):
            if job.state == "PENDING" and not job.leaving and self._may_start(job):
                nodes = self._free_nodes(job)
                if nodes is not None:
                    self._start(job, nodes)
                    started.append(job)
        self.keep()
        return started

    def finish(self, job: FakeJob, code: int) -> None:
        """The batch script exits by itself."""
        self._leave_nodes(job)
        if self.exits_come_back and job.preempted_at is not None and job.requeue and not job.leaving:
            job.restarts += 1
            job.comes_back = True
            job.depends = None
        if job.comes_back:
            self._wait_again(job)
        else:
            self._over(job, "COMPLETED" if code == 0 else "FAILED", code)
        self.keep()

    def gone(self, job: FakeJob) -> None:
        """The processes of a job that is being ended are dead."""
        self._leave_nodes(job)
        if job.comes_back:
            self._wait_again(job)
        elif job.leaving:
            why = {"TimeLimit": "TIMEOUT", "NodeDown": "NODE_FAIL", "Preempted": "PREEMPTED"}
            self._over(job, why.get(job.reason, "CANCELLED"), 0)
        self.keep()

    def requeue(self, job: FakeJob, *, hold: bool = False) -> str:
        """What scontrol requeue does; the refusal's words, or ""."""
        if not job.requeue:
            return "Requested operation is presently disabled"
        if job.comes_back or job.state == "PENDING":
            return "Job is pending execution"
        if job.over and job.state != "CANCELLED":
            job.exit_code = None
        elif job.over:
            return "Requested operation is presently disabled"
        if hold:
            job.held = "job requeued in held state"
        was_over = job.over
        self._end(job, comes_back=True)
        if was_over:
            self._wait_again(job)
        return ""

    def preempt(self, job: FakeJob, grace: float) -> None:
        """Choose a running job for preemption: PreemptTime is set, and its end is near. It still runs."""
        job.preempted_at = self.now
        job.end = self.now + grace if job.end is None else min(job.end, self.now + grace)
        self.keep()

    def end_grace(self, job: FakeJob) -> None:
        """The grace is over: the job is being ended, and comes back if it may."""
        if not job.comes_back:
            self._end(job, comes_back=job.requeue)
            job.reason = "None" if job.requeue else "Preempted"
        self.keep()

    def end_limit(self, job: FakeJob) -> None:
        """The time limit is reached: the job is being ended, and does not come back by itself."""
        job.reason = "TimeLimit"
        self._end(job, comes_back=False, restart=False)
        self.keep()

    def cancel(self, job: FakeJob) -> None:
        """What scancel does."""
        if job.over:
            return
        if job.state == "PENDING" and not job.leaving:
            self._over(job, "CANCELLED", 0)
        else:
            job.comes_back = False
            self._end(job, comes_back=False, restart=False)
        self.keep()

    def lose_script(self, job: FakeJob) -> None:
        """A job that has started ends FAILED without its script having run ("Job credential revoked")."""
        job.starts -= 1
        self._leave_nodes(job)
        self._over(job, "FAILED", 1)
        self.keep()

    def lose_node(self, name: str) -> list[FakeJob]:
        """A node is down; jobs on it are being ended and come back if they may. Returns those jobs."""
        node = self.nodes[name]
        node.up = False
        hit = [job for job in self.jobs.values() if name in job.nodes and job.state == "RUNNING"]
        for job in hit:
            self._end(job, comes_back=job.requeue)
            if not job.requeue:
                job.reason = "NodeDown"
        self.keep()
        return hit

    def return_node(self, name: str) -> None:
        """The node is up again."""
        self.nodes[name].up = True

    def remove_node(self, name: str) -> None:
        """The node is taken out of the cluster: Slurm does not know its name any more."""
        self.lose_node(name)
        del self.nodes[name]

    # ---- inside

    def _may_start(self, job: FakeJob) -> bool:
        if job.held or job.begin > self.now:
            return False
        if job.depends is None:
            return True
        kind, other = job.depends
        before = self.jobs.get(other)
        if before is not None and not before.over:
            return False
        good = before is not None and before.state == "COMPLETED"
        if kind == "afterany" or (kind == "afterok") == good:
            return True
        self._over(job, "CANCELLED", 0)  # --kill-on-invalid-dep=yes
        return False

    def _free_nodes(self, job: FakeJob) -> tuple[str, ...] | None:
        least, most = job.needs
        free = [n.name for n in self.nodes.values() if n.up and n.used_by is None and n.name not in job.excluded]
        if any(name not in free for name in job.required):
            return None
        ordered = [*job.required, *(name for name in free if name not in job.required)]
        return tuple(sorted(ordered[:most])) if len(ordered) >= least else None

    def _start(self, job: FakeJob, nodes: tuple[str, ...]) -> None:
        for name in nodes:
            self.nodes[name].used_by = job.id
        job.nodes, job.state, job.reason, job.start = nodes, "RUNNING", "None", self.now
        job.end = None if job.limit is None else self.now + job.limit
        job.starts += 1

    def _end(self, job: FakeJob, *, comes_back: bool, restart: bool = True) -> None:
        job.state, job.leaving, job.comes_back, job.end = "COMPLETING", True, comes_back, self.now
        job.preempted_at = None
        if comes_back:
            job.depends = None  # it was met; while the job waits again it may be given another one
        if comes_back and restart:
            job.restarts += 1
            job.start = self.now

    def _wait_again(self, job: FakeJob) -> None:
        job.state, job.reason, job.leaving, job.comes_back = "PENDING", job.held or "BeginTime", False, False
        job.begin = max(job.begin, self.now + self.requeue_delay)
        job.start = job.end = job.preempted_at = None

    def _leave_nodes(self, job: FakeJob) -> None:
        for node in self.nodes.values():
            if node.used_by == job.id:
                node.used_by = None
        job.nodes = ()

    def _over(self, job: FakeJob, state: str, code: int) -> None:
        job.state, job.exit_code, job.end, job.leaving = state, code, self.now, False
        job.comes_back = False
