"""The emulated controller: takes jobs, starts, preempts, ends, requeues them. Owns all state; one thread at a time.

What is to be decided is in `agenda`, `dependencies` and `rules`; what happens to running jobs is in `running`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpcresume.emulate.agenda import plan
from hpcresume.emulate.batch import keep_script
from hpcresume.emulate.dependencies import Dependency, Fate, Met, judge_one, parse_dependency, together
from hpcresume.emulate.getopt_long import OptionError
from hpcresume.emulate.jobs import Job, Phase
from hpcresume.emulate.nodes import Node, Partition
from hpcresume.emulate.request import JobRequest
from hpcresume.emulate.rules import EndedBy
from hpcresume.emulate.running import Runner
from hpcresume.emulate.settings import ClusterSettings
from hpcresume.emulate.variables import Place
from hpcresume.model import Emit, ignore_events

__all__ = ["Controller"]

_NO_SPACE = "sbatch: error: Batch job submission failed: I/O error writing script/environment to file\n"

_TOP = 4294901760
"""The priority that the first job gets, the next one less (priority/basic)."""
PATIENCE = 2.0
"""Seconds for which a job waits for the folder of its log. submitit makes it after sbatch has returned, and real
clusters take that long to start a job."""


class Controller:
    """Jobs, nodes and partitions of one cluster."""

    def __init__(
        self, settings: ClusterSettings, place: Place, spool: Path, emit: Emit = ignore_events, first: int | None = None
    ) -> None:
        """`first` is the first job's number; a random one by default, since a job's number says who holds a run."""
        self.settings = settings
        self.place = place
        self.partitions = {partition.name: partition for partition in settings.partitions}
        self.nodes = {name: Node(name, settings.cpus) for name in settings.names}
        self.jobs: dict[int, Job] = {}
        self.runner = Runner(self, emit)
        self.changed = True
        self._spool = spool
        self._next = 1_000_000 + secrets.randbelow(9_000_000) if first is None else first

    @property
    def default_partition(self) -> Partition:
        """Where jobs go that name none."""
        return self.settings.partitions[0]

    # ---- what users ask for

    def submit(self, request: JobRequest) -> list[Job]:
        """Put a job, or every task of an array, in the queue.

        Raises:
            OptionError: as sbatch refuses it.
        """
        partition = self._partition(request)
        conditions, any_one = parse_dependency(request.dependency)
        limit = self._limit(request, partition)
        tasks: Sequence[int | None] = (None,) if request.array is None else request.array.tasks
        array = self._next if request.array is not None else None
        made: list[Job] = []
        for task in tasks:
            job = Job(
                self._number(), request, partition, time.time(), array=array, task=task,
                dependency=conditions, any_dependency=any_one, limit=limit, begin=request.begin,
                requeue=self.settings.requeue if request.requeue is None else request.requeue,
            )  # fmt: skip
            job.priority = _TOP - len(self.jobs) - request.nice
            job.held = "JobHeldUser" if request.hold else ""
            try:
                job.spool = keep_script(job, self._spool)
            except OSError:
                for other in made:
                    del self.jobs[other.number]
                raise OptionError(_NO_SPACE) from None
            self.jobs[job.number] = job
            made.append(job)
        self.changed = True
        return made

    def _number(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    def _partition(self, request: JobRequest) -> Partition:
        if not request.partition:
            return self.default_partition
        for name in request.partition.split(","):
            if name in self.partitions:
                return self.partitions[name]
        raise OptionError(
            f"sbatch: error: invalid partition specified: {request.partition}\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
        )

    def _limit(self, request: JobRequest, partition: Partition) -> float | None:
        limit = request.time_limit
        if limit is None and not request.unlimited:
            limit = partition.default_limit or partition.limit
        return limit

    def find(self, text: str) -> list[Job]:
        """The jobs that `12`, `12_3` or `12_[1-3]` names: an array's number names all its tasks. Empty: none."""
        number, underscore, tasks = text.partition("_")
        if not (number.isascii() and number.isdecimal() and len(number) <= 10):
            return []
        if not underscore:
            array = [job for job in self.jobs.values() if job.array == int(number)]
            return array or [job for job in self.jobs.values() if job.number == int(number)]
        wanted = _task_numbers(tasks)
        return [j for j in self.jobs.values() if j.array == int(number) and (wanted is None or j.task in wanted)]

    def cancel(self, job: Job) -> None:
        """What scancel does without a signal."""
        if job.over:
            return
        if job.running:
            self.runner.begin_end(job, EndedBy.CANCEL)
        else:
            job.state, job.reason, job.end = "CANCELLED", "None", time.time()
        self.changed = True

    def requeue(self, job: Job, *, hold: bool = False) -> str:
        """What scontrol requeue does; the refusal's text, or "" ."""
        if not job.requeue:
            return "Requested operation is presently disabled"
        if not job.running and not job.over:
            return "Job is pending execution"
        if hold:
            job.held = "job_requeued_in_held_state"
        if job.running:
            self.runner.ask_requeue(job)
        else:
            self.put_back(job, job.restarts + 1)
        self.changed = True
        return ""

    def put_back(self, job: Job, restarts: int) -> None:
        """In the queue again, to start no sooner than the requeue delay allows."""
        job.state, job.reason, job.restarts = "PENDING", "BeginTime", restarts
        job.begin = time.time() + self.settings.requeue_delay
        job.submitted = time.time()
        job.start = job.end = job.preempted_at = None
        job.wants_requeue = False
        job.dependency, job.failed_dependencies = (), frozenset()
        self.changed = True

    def hold(self, jobs: Iterable[Job]) -> None:
        """What scontrol hold does."""
        for job in jobs:
            job.held = "JobHeldUser"

    def release(self, jobs: Iterable[Job]) -> None:
        """What scontrol release does."""
        for job in jobs:
            job.held = ""
        self.changed = True

    def set_down(self, node: Node, reason: str) -> None:
        """What scontrol update State=DOWN does: its jobs are ended as with a lost node, and come back."""
        node.state, node.reason, node.since = "down", reason, time.time()
        for job in self.jobs.values():
            if job.running and node.name in job.nodes:
                self.runner.begin_end(job, EndedBy.NODE_FAILURE)
        self.changed = True

    def lose_node(self, name: str) -> None:
        """The machine is gone at once, whether a job is on it or not."""
        self.runner.kill_node(name, empty=True)
        if not self.nodes[name].jobs:
            self.nodes[name].down_until = time.time() + self.settings.node_down
        self.changed = True

    # ---- what time brings

    def turn(self) -> None:
        """Look after everything once."""
        self.runner.advance()
        if self.changed or any(not j.running and not j.over for j in self.jobs.values()):
            self._schedule()

    def _schedule(self) -> None:
        now = time.time()
        self.changed = False
        ready = self._throttled([job for job in self._pending() if self._is_ready(job, now)])
        running = [job for job in self.jobs.values() if job.running]
        agenda = plan(ready, running, list(self.nodes.values()), now)
        for job, allocation in agenda.starts:
            self.runner.start(job, allocation)
        for job in agenda.victims:
            self.runner.preempt(job)
        for number, reason in agenda.reasons.items():
            self.jobs[number].reason = reason

    def _pending(self) -> list[Job]:
        return [job for job in self.jobs.values() if not job.running and not job.over]

    def _is_ready(self, job: Job, now: float) -> bool:
        """Does it wait for nodes only? Else its reason says for what."""
        if job.held:
            job.reason = job.held
            return False
        if job.begin is not None and now < job.begin:
            job.reason = "BeginTime"
            return False
        if now < job.submitted + PATIENCE and not job.restarts and not os.path.isdir(Path(job.output()).parent):
            job.reason = "None"
            return False
        met = self._met(job, now)
        if met is Met.NEVER:
            job.reason = "DependencyNeverSatisfied"
            if job.request.kill_on_invalid_dependency:
                job.state, job.end = "CANCELLED", now
            return False
        if met is Met.WAITING:
            job.reason = "Dependency"
            return False
        most = job.partition.limit
        if most is not None and (job.limit is None or job.limit > most):
            job.reason = "PartitionTimeLimit"
            return False
        return True

    def _throttled(self, ready: Sequence[Job]) -> list[Job]:
        """Those that an array's %N lets start: only tasks that run count against it, not such as cannot start yet."""
        left: dict[int, int] = {}
        chosen = []
        for job in sorted(ready, key=lambda each: each.number):
            plan, array = job.request.array, job.array
            if plan is not None and array is not None and plan.limit:
                if array not in left:
                    running = sum(other.running and other.array == array for other in self.jobs.values())
                    left[array] = plan.limit - running
                if left[array] <= 0:
                    job.reason = "JobArrayTaskLimit"
                    continue
                left[array] -= 1
            chosen.append(job)
        return chosen

    def _met(self, job: Job, now: float) -> Met:
        """Where its dependency stands. What has failed once stays so, though that job is started again (seen)."""
        found = {each: judge_one(each, self._fates(job, each), now) for each in job.dependency}
        job.failed_dependencies |= {each for each, met in found.items() if met is Met.NEVER}
        verdicts = [Met.NEVER if each in job.failed_dependencies else met for each, met in found.items()]
        return together(verdicts, job.any_dependency)

    def wait_for(self, job: Job, text: str) -> None:
        """What scontrol update Dependency does: whatever it waited for before, it waits for this now.

        Raises:
            OptionError: no such form.
        """
        job.dependency, job.any_dependency = parse_dependency(text)
        job.failed_dependencies = frozenset()

    def _fates(self, job: Job, condition: Dependency) -> list[Fate]:
        if condition.kind == "singleton":
            others = [o for o in self.jobs.values() if o.request.name == job.request.name and o.number < job.number]
        else:
            others = [o for o in self.jobs.values() if condition.job in (o.number, o.array)]
            task = job.task if condition.kind == "aftercorr" else condition.task
            if task is not None:
                others = [other for other in others if other.task == task]
        return [Fate(o.first_start, o.over, o.state == "COMPLETED") for o in others]

    def idle(self) -> bool:
        """Is nothing running, and nothing pending that could ever start by itself?"""
        now = time.time()
        if any(job.running for job in self.jobs.values()):
            return False
        returning = any(now < node.down_until < float("inf") for node in self.nodes.values())
        moving = {"BeginTime", "None"} | ({"Resources", "ReqNodeNotAvail", "Priority"} if returning else set())
        return not any(job.reason in moving for job in self._pending())

    def free_nodes(self, job: Job) -> None:
        """Take the nodes of a job back."""
        assert job.allocation is not None
        for name, cpus in zip(job.allocation.nodes, job.allocation.cpus, strict=True):
            node = self.nodes[name]
            node.used -= cpus
            node.jobs -= 1
            # A lost node stays away until nothing of its jobs is left, and for a while longer.
            if not node.jobs and node.down_until == float("inf"):
                node.down_until = time.time() + self.settings.node_down
        job.phase = Phase.RUNNING
        self.changed = True


def _task_numbers(text: str) -> set[int] | None:
    """Tasks of `3` or `[1-3,5]`; None for `*`."""
    if text in ("*", "[*]"):
        return None
    numbers: set[int] = set()
    for part in text.strip("[]").split(","):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or len(low + high) > 18:
            return set()
        last = int(high) if dash else int(low)
        if last - int(low) > 100_000:
            return set()
        numbers |= set(range(int(low), last + 1))
    return numbers
