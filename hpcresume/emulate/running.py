"""What happens to running jobs: start, warning, grace, end sequence, time limit, lost nodes, and the end itself.

Who is signalled is in `rules`; whose turn it is in `agenda`. One thread at a time.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from hpcresume.emulate import census
from hpcresume.emulate.batch import BatchError, exit_status, note, start_batch
from hpcresume.emulate.census import Census, Member
from hpcresume.emulate.hostlist import compress
from hpcresume.emulate.jobs import Job, Phase
from hpcresume.emulate.nodes import Allocation, Node
from hpcresume.emulate.progress import ProgressReader
from hpcresume.emulate.result import AttemptEnd
from hpcresume.emulate.rules import (
    Delivery,
    Ended,
    EndedBy,
    Target,
    aftermath,
    end_sequence,
    limit_warning,
    preemption_warning,
)
from hpcresume.emulate.settings import ClusterSettings
from hpcresume.emulate.slurm_time import stamp
from hpcresume.emulate.variables import Place, batch_variables
from hpcresume.model import Emit, Event

__all__ = ["Books", "Runner"]

LOOK_EVERY = 0.02
"""Seconds between looks at what is left of a job whose script has ended."""
MAX_LAUNCHES = 5
"""Times that a job which ended within its grace is put back before it is held (MaxBatchRequeue, slurm.conf(5))."""
APART = 0.008
"""Seconds between CONT and the signal after it (6 to 10 watched): a shell that traps both loses one of two at once."""
_WORDS = {
    EndedBy.PREEMPTION: " DUE TO PREEMPTION",
    EndedBy.TIME_LIMIT: " DUE TO TIME LIMIT",
    EndedBy.REQUEUE: " DUE TO JOB REQUEUE",
    EndedBy.NODE_FAILURE: " DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS",
}
"""What slurmstepd writes into the job's log when it ends it."""


class Books(Protocol):
    """What of the controller is needed here."""

    settings: ClusterSettings
    place: Place
    jobs: dict[int, Job]
    nodes: dict[str, Node]
    changed: bool

    def free_nodes(self, job: Job) -> None:
        """Take a job's nodes back."""

    def put_back(self, job: Job, restarts: int) -> None:
        """In the queue again."""


class Runner:
    """The hands of the controller."""

    def __init__(self, controller: Books, emit: Emit) -> None:
        self._controller = controller
        self._emit = emit
        self._began = time.monotonic()
        self._census = Census(controller.place.token, self._tasks_per_node)
        self._progress: dict[int, ProgressReader] = {}
        self._look_at = 0.0
        self._step_kills: list[tuple[float, Job, int]] = []
        self._told: dict[int, str] = {}

    def _tasks_per_node(self, number: int) -> Sequence[int]:
        job = self._controller.jobs.get(number)
        return (1,) if job is None or job.allocation is None else job.allocation.tasks

    def members(self, job: Job) -> list[Member]:
        """The job's processes."""
        return self._census.members((job.number,))

    def step_of(self, job: Job) -> int:
        """The newest step of the training that the job is known to have finished, -1 for none."""
        if job.number not in self._progress:
            self._progress[job.number] = ProgressReader(self._place(job).launch_parent)
        return self._progress[job.number].step()

    def _place(self, job: Job) -> Place:
        place = self._controller.place
        return Place(**{**vars(place), "launch_parent": place.launch_parent / f"{job.number}-{job.restarts}"})

    def now(self) -> float:
        """Seconds since the cluster's start."""
        return round(time.monotonic() - self._began, 3)

    def tell(self, name: str, job: Job, **fields: object) -> None:
        """Report an event."""
        self._emit(Event(name, {"at": self.now(), "job": job.id, **fields}))

    # ---- begin

    def start(self, job: Job, allocation: Allocation) -> None:
        """Give the job its nodes and run its script."""
        controller = self._controller
        now = time.time()
        for name, cpus in zip(allocation.nodes, allocation.cpus, strict=True):
            controller.nodes[name].used += cpus
            controller.nodes[name].jobs += 1
        job.allocation, job.state, job.reason, job.phase = allocation, "RUNNING", "None", Phase.RUNNING
        job.start, job.end, job.preempted_at = now, None if job.limit is None else now + job.limit, None
        job.first_start = job.first_start or now
        job.attempt_start, job.next_at, job.ended_by = time.monotonic(), float("inf"), EndedBy.ITSELF
        job.warned_of_limit, job.steps, job.fired, job.counted = job.limit is None, [], [], False
        job.srun_pids = set()
        self.tell("start", job, attempt=len(job.attempts) + 1, nodes=compress(job.nodes), ranks=job.ntasks,
                  output=job.output(), error=job.error(), title=job.request.name,
                  append=controller.settings.append if job.request.append is None else job.request.append)  # fmt: skip
        try:
            place = self._furnished(job)
            job.batch = start_batch(job, batch_variables(job, place), append=controller.settings.append)
        except (BatchError, OSError) as error:
            # A full disk or a missing folder is the end of this job, not of the cluster.
            self.tell("no-start", job, why=str(error))
            self._conclude(job, error.code if isinstance(error, BatchError) else 1)

    def _furnished(self, job: Job) -> Place:
        """The job's place with what must lie there."""
        place = self._place(job)
        (place.launch_parent / "batch").mkdir(mode=0o700, parents=True, exist_ok=True)
        # For an mpiexec that the script calls: it has as many slots here as the job has tasks.
        (place.launch_parent / "hosts").write_text(f"localhost slots={job.ntasks}\n", encoding="ascii")
        return place

    # ---- deeds

    def preempt(self, job: Job) -> bool:
        """Slurm takes the nodes back: warning, grace, end. False when the job is past that already."""
        if not job.running or job.phase is not Phase.RUNNING:
            return False
        settings, grace, now = self._controller.settings, job.partition.grace, time.time()
        planned = now + grace if job.end is None else min(job.end, now + grace)
        job.preempted_at, job.end = now, planned
        job.phase, job.next_at = Phase.GRACE, time.monotonic() + (planned - now)
        sent = self.deliver(job, preemption_warning(job.request.signal, user_signal=settings.user_signal))
        self.tell("preempt", job, nodes=compress(job.nodes), sent=sent, grace=grace)
        if grace <= 0:
            self.begin_end(job, EndedBy.PREEMPTION)
        return True

    def kill_rank(self, job: Job, rank: int) -> bool:
        """Kill -9 of one rank; False when there is none now."""
        members = self.members(job) if job.running else []
        victim = _rank_of(members, rank)
        if victim is None or not census.kill_one(victim):
            return False
        self.tell("kill-rank", job, rank=rank, pid=victim.pid, step=self.step_of(job))
        return True

    def kill_node(self, name: str, *, empty: bool = False) -> bool:
        """A machine is gone, with all that ran on it. False when no job has a process there, unless `empty` will do."""
        controller = self._controller
        node = controller.nodes[name]
        jobs = [j for j in controller.jobs.values() if j.running and name in j.nodes and j.phase is not Phase.ENDING]
        if not empty and not any(self._on_node(job, name) for job in jobs):
            return False
        node.down_until, node.reason, node.since = float("inf"), "Not responding", time.time()
        for job in jobs:
            count = census.kill(lambda job=job: self._on_node(job, name))  # type: ignore[misc]
            self.tell("kill-node", job, node=name, processes=count, step=self.step_of(job))
            self.begin_end(job, EndedBy.NODE_FAILURE)
        controller.changed = True
        return True

    def _on_node(self, job: Job, name: str) -> list[Member]:
        index = job.nodes.index(name)
        return [member for member in self.members(job) if member.node == index]

    def ask_requeue(self, job: Job) -> None:
        """Scontrol requeue of a job that runs: no warning, no grace."""
        job.wants_requeue = True
        self.tell("requeue-asked", job)
        if job.phase is not Phase.ENDING:
            self.begin_end(job, EndedBy.REQUEUE)

    def begin_end(self, job: Job, by: EndedBy) -> None:
        """CONT and TERM to all, KILL after KillWait."""
        if job.phase is Phase.ENDING:
            return
        job.ended_by, job.phase = by, Phase.ENDING
        kill_wait = self._controller.settings.kill_wait
        job.next_at = time.monotonic() + kill_wait
        self._publish_ending(job, by)
        where = job.nodes[0]
        note(job, f"*** JOB {job.number} ON {where} CANCELLED AT {stamp(time.time())}{_WORDS.get(by, '')} ***")
        *first, batch, ranks = end_sequence(by)
        if self.deliver(job, first):
            time.sleep(APART)
        sent = self.deliver(job, (batch, ranks))
        self.tell("end-sequence", job, why=by.value, sent=sent, kill_wait=kill_wait)

    def _publish_ending(self, job: Job, by: EndedBy) -> None:
        """As seen on 22.05: COMPLETING and little else; Restarts tells first that the job will be started again."""
        job.state = "COMPLETING"
        job.end = time.time()
        if by is EndedBy.TIME_LIMIT:
            job.reason = "TimeLimit"
        elif by is not EndedBy.CANCEL and self._comes_back(job):
            job.restarts_shown, job.end, job.preempted_at = job.restarts + 1, None, None

    def _comes_back(self, job: Job) -> bool:
        return job.requeue and not (job.ended_by is EndedBy.PREEMPTION and job.partition.preempt == "cancel")

    def deliver(self, job: Job, deliveries: Iterable[Delivery]) -> str:
        """Send; return for people what went where."""
        members = self.members(job)
        wanted = [(each, self._targets(job, members, each.target)) for each in deliveries]
        texts = [_words(each, len(targets)) for each, targets in wanted]
        rounds = max((len(each.signals) for each, _ in wanted), default=0)
        for number in range(rounds):
            if number:
                time.sleep(APART)
            for each, targets in wanted:
                if number < len(each.signals):
                    if each.target is not Target.RANKS:
                        self.signal_batch(job, each.signals[number : number + 1])
                    census.send(targets, each.signals[number : number + 1])
        return ", ".join(texts)

    def _targets(self, job: Job, members: Iterable[Member], target: Target) -> list[Member]:
        """Whom it concerns, but for the batch shell itself."""
        if target is Target.RANKS:
            return [m for m in members if m.step is not None and not m.engine]
        return self._beside(job, members) if target is Target.BATCH_ALL else []

    def _beside(self, job: Job, members: Iterable[Member]) -> list[Member]:
        """Processes of the batch step but its shell, and but srun, to which the end sequence does nothing."""
        return [m for m in members if m.step is None and m.pid != _pid(job) and m.pid not in job.srun_pids]

    def send_signal(self, job: Job, number: signal.Signals, *, batch: bool, full: bool) -> None:
        """Scancel with a signal: to the steps, to the batch shell, or to everything."""
        if batch:
            self.signal_batch(job, (number,))
        elif full:
            self.deliver(job, (Delivery(Target.BATCH_ALL, (number,)), Delivery(Target.RANKS, (number,))))
        else:
            self.deliver(job, (Delivery(Target.RANKS, (number,)),))

    def signal_step(self, job: Job, step: int, number: signal.Signals, *, ends: bool = False) -> None:
        """Signal every process of a step; `ends`: TERM now and KILL after KillWait."""
        members = [m for m in self.members(job) if m.step == step]
        census.send(members, (number,))
        if ends:
            self._step_kills.append((time.monotonic() + self._controller.settings.kill_wait, job, step))

    def signal_batch(self, job: Job, numbers: Iterable[signal.Signals]) -> None:
        """Signal the batch shell alone."""
        if job.batch is not None and job.batch.poll() is None:
            for number in numbers:
                job.batch.send_signal(number)

    # ---- what time brings

    def advance(self) -> None:
        """Look after every running job once."""
        now = time.monotonic()
        self._kill_steps(now)
        self._watch_steps()
        running = [job for job in self._controller.jobs.values() if job.running]
        ended = []
        for job in running:
            assert job.batch is not None
            if job.batch.poll() is None:
                with self._trouble(job):
                    self._advance_one(job, now)
            else:
                ended.append(job)
        if ended and now >= self._look_at:
            with self._trouble(ended[0]):
                self._after_script(ended, now)

    @contextlib.contextmanager
    def _trouble(self, job: Job) -> Iterator[None]:
        """What the system refuses for a moment, a descriptor for instance, is said once and tried again."""
        try:
            yield
        except OSError as error:
            text = str(error)
            if self._told.get(job.number) != text:
                self._told[job.number] = text
                self.tell("trouble", job, why=text)

    def _kill_steps(self, now: float) -> None:
        for due in [each for each in self._step_kills if now >= each[0]]:
            self._step_kills.remove(due)
            _, job, step = due
            if job.running:
                census.send([m for m in self.members(job) if m.step == step], (signal.SIGKILL,))

    def _watch_steps(self) -> None:
        """End the steps that take longer than their srun's --time."""
        now = time.time()
        for job in self._controller.jobs.values():
            for step in job.steps if job.running else ():
                if step.end is None and step.limit is not None and now >= step.start + step.limit:
                    step.limit = None
                    where, which = step.nodes[0], f"{job.number}.{step.number}"
                    note(job, f"*** STEP {which} ON {where} CANCELLED AT {stamp(now)} DUE TO TIME LIMIT ***")
                    self.signal_step(job, step.number, signal.SIGCONT)
                    self.signal_step(job, step.number, signal.SIGTERM, ends=True)

    def _advance_one(self, job: Job, now: float) -> None:
        if job.phase is not Phase.ENDING and job.limit is not None:
            self._watch_limit(job, now - job.attempt_start, job.limit)
        if job.phase is Phase.GRACE and now >= job.next_at:
            self.tell("grace-over", job)
            self.begin_end(job, EndedBy.PREEMPTION)
        elif job.phase is Phase.ENDING and now >= job.next_at:
            job.next_at = float("inf")
            self.tell("kill", job, processes=census.kill(lambda: self.members(job)))

    def _watch_limit(self, job: Job, elapsed: float, limit: float) -> None:
        plan = job.request.signal
        lead = plan.lead if plan is not None else 0.0
        if not job.warned_of_limit and elapsed >= limit - lead:
            job.warned_of_limit = True
            sent = self.deliver(job, limit_warning(plan)) if job.phase is Phase.RUNNING else ""
            if sent:
                self.tell("limit-near", job, sent=sent, left=max(0.0, limit - elapsed))
        if elapsed >= limit:
            self.tell("time-limit", job, limit=limit)
            self.begin_end(job, EndedBy.TIME_LIMIT)

    def _after_script(self, ended: Sequence[Job], now: float) -> None:
        """The scripts are over: what they left is killed, steps that still run are ended first."""
        left: dict[int, list[Member]] = {job.number: [] for job in ended}
        for member in self._census.members(left):
            left[member.job].append(member)
        for job in ended:
            tasks = [m for m in left[job.number] if m.step is not None and not m.engine]
            if tasks and not (job.phase is Phase.ENDING and now >= job.next_at):
                self._look_at = now + LOOK_EVERY
                self._end_steps(job, left[job.number], tasks, now)
                continue
            if left[job.number]:
                census.kill(lambda job=job: self.members(job))  # type: ignore[misc]
            assert job.batch is not None
            self._conclude(job, job.batch.returncode)

    def _end_steps(self, job: Job, members: Sequence[Member], tasks: Sequence[Member], now: float) -> None:
        if not job.counted:
            job.counted = True
            for member in members:
                if member.step is None and not member.engine and member.pid not in job.srun_pids:
                    census.kill_one(member)
        if job.phase is Phase.ENDING:
            return
        job.in_grace, job.phase = job.phase is Phase.GRACE, Phase.ENDING
        job.next_at = now + self._controller.settings.kill_wait
        job.state = "COMPLETING"
        census.send(tasks, (signal.SIGCONT, signal.SIGTERM))

    # ---- the end

    def _conclude(self, job: Job, code: int) -> None:
        """Nothing of the attempt is left: say how it ended, and put it back in the queue or not."""
        controller = self._controller
        by = EndedBy.REQUEUE if job.wants_requeue and job.ended_by in _REQUEUE_COUNTS else job.ended_by
        in_grace = job.phase is Phase.GRACE or job.in_grace
        job.exit_code, job.killed_by = exit_status(code)
        shown = code if code >= 0 else 128 - code
        requeue = self._may_come_back(job, by, in_grace)
        after = aftermath(Ended(by, shown, in_grace), requeue=requeue, slurm=controller.settings.slurm)
        end = AttemptEnd(
            number=len(job.attempts) + 1, start=job.start or 0.0, end=time.time(), exit_code=shown, state=after.state,
            requeued=after.requeued, why=after.why, fired=tuple(job.fired),
        )  # fmt: skip
        job.attempts.append(end)
        job.batch, job.state, job.reason, job.end = None, after.state, _reason(after.state), end.end
        controller.free_nodes(job)
        job.restarts_shown, job.in_grace = None, False
        reader = self._progress.pop(job.number, None)
        if reader is not None:
            reader.close()
        if after.requeued:
            self._count_launch(job, by)
            controller.put_back(job, job.restarts + 1)
        self.tell("end", job, attempt=end.number, exit_code=shown, state=end.state, requeued=end.requeued, why=end.why)

    def _count_launch(self, job: Job, by: EndedBy) -> None:
        """A job that was put back because it ended within its grace, again and again, is held."""
        job.launches += by is EndedBy.ITSELF
        if job.launches > MAX_LAUNCHES:
            job.held = "JobHoldMaxRequeue"

    def _may_come_back(self, job: Job, by: EndedBy, in_grace: bool) -> bool:
        preempted = by is EndedBy.PREEMPTION or in_grace
        return job.requeue and not (preempted and job.partition.preempt == "cancel")


_REQUEUE_COUNTS = (EndedBy.ITSELF, EndedBy.TIME_LIMIT, EndedBy.REQUEUE)
"""A wish to be requeued counts for a job at its time limit and for one that has just ended, too."""


def _words(delivery: Delivery, count: int) -> str:
    names = "+".join(number.name.removeprefix("SIG") for number in delivery.signals)
    return (
        f"{names} to the ranks ({count} processes)"
        if delivery.target is Target.RANKS
        else f"{names} to the batch script"
    )


def _pid(job: Job) -> int:
    return job.batch.pid if job.batch is not None else -1


def _reason(state: str) -> str:
    return {"FAILED": "NonZeroExitCode", "TIMEOUT": "TimeLimit", "NODE_FAIL": "NodeDown"}.get(state, "None")


def _rank_of(members: Sequence[Member], rank: int) -> Member | None:
    """The rank's own process: of those with its number the one whose parent is none of them."""
    workers = [m for m in members if "TORCHELASTIC_RUN_ID" in m.process.environ and not m.engine]
    if workers:
        own = [m for m in workers if m.process.environ.get("RANK") == str(rank)]
    else:
        own = [m for m in members if m.rank == rank and not m.engine]
    pids = {member.pid for member in own}
    return next((member for member in own if member.process.parent not in pids), None)
