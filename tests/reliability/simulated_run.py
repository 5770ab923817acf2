"""One run on a fake cluster with a fake clock: what ends its attempts is drawn, what follows is the real code's doing.

The parts that are played here are those that need processes: ranks that train, commit and die, and the evidence that
a supervisor gathers of it. Who may start, who claims, what is recorded, why it ended, what is decided, and everything
that is said to Slurm, is hpcresume.launch, hpcresume.checkpoint, hpcresume.policy and hpcresume.slurm.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcresume.checkpoint.attempts import Holder, claim, newest_attempt, record_start
from hpcresume.checkpoint.history import lineage_names
from hpcresume.comm.single import SingleRanks
from hpcresume.errors import RunBusyError, RunDirectoryError, SlurmError
from hpcresume.io.durable import append_line
from hpcresume.io.paths import RunPaths, generation_name, parse_generation_name
from hpcresume.launch.comeback import carry_out
from hpcresume.launch.ending import conclude
from hpcresume.launch.gate import MICRO_BATCHES, admit
from hpcresume.launch.hands import Hands
from hpcresume.launch.journal import Journal
from hpcresume.launch.opening import open_record
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.other_hands import step_aside, was_refused
from hpcresume.launch.rendezvous import Claimed
from hpcresume.launch.siblings import stands_behind
from hpcresume.model import EXIT_DONE, EXIT_HOLD, Cause, Decision
from hpcresume.policy.budgets import DEFAULT_LIMITS, Budgets
from hpcresume.policy.cause import ChildExit, Evidence, Raised, SessionDecision, SignalReceived
from hpcresume.policy.fallback import Fallback
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.commands import Answer, down_nodes, job_alive, show_job
from hpcresume.slurm.environment import SlurmEnvironment
from hpcresume.slurm.sibling_list import GUARD, Sibling, guard_words, note_waiting, told_behind
from hpcresume.testing.fake_slurm import FakeJob, FakeSlurm, environment_of
from tests.reliability.shared_files import SharedFiles

TOTAL = 40
"""Steps of the whole training."""
HORIZON = 60 * 86400.0
"""Seconds of fake time: whatever waits longer waits for ever."""
KILL_WAIT = 30.0
USR1, TERM, KILL = 10, 15, 9

FREE = frozenset({"preempted", "preempted-unheard", "operator-requeues", "script-lost"})
"""Ends that no budget counts: the cluster's, and a person's."""

FATES = {
    "finish": 6, "preempted": 10, "preempted-unheard": 3, "crash": 5, "killed": 3, "node": 5, "batch-node": 4,
    "split-brain": 4, "walltime": 3, "walltime-unsaved": 2, "no-space": 2, "storage-hold": 1, "hold-77": 0.3,
    "cancelled": 0.5, "operator-warns": 1, "operator-requeues": 1, "script-lost": 0.5, "barren": 3, "typo": 0.4,
}  # fmt: skip
"""What ends an attempt, and how often. Of a hundred starts one loses its script, of a run of bad character three: far
more than on any cluster, and so few that two in a row are as rare as they should be.
"""
GUARDS = [None, None, None, True, True, False]
"""What users say: mostly nothing, which leaves a guard where the cluster forbids requeues."""


LOST = frozenset({"script-lost", "batch-node", "split-brain", "preempted-unheard"})
"""Ends of a start of which no supervisor of its own tells."""
TERMED = frozenset({"walltime-unsaved", "node", "operator-requeues"})
"""Ends that come with Slurm's TERM and no warning before it, so that there is no time to wait for an answer."""
NEVER_RAN, DIED = "its script never ran", "it died with its supervisor, and Slurm requeues nothing"
NOT_TOLD = "ended by Slurm while its controller was silent"
TWICE, OUT_OF_REACH = "two losses in a row, its guard's too", "no moment at which a guard could be left"
UNSEEN = {False: (NEVER_RAN, DIED, NOT_TOLD), True: (TWICE, OUT_OF_REACH)}
"""All that may end a run with nobody of ours there, without a guard and with one."""


@dataclass
class Character:
    """What is wrong with a run, or with its cluster, for one seed."""

    fates: dict[str, float]
    bug_at: int | None = None
    memory_needs: int = 1
    unfit_nodes: frozenset[str] = frozenset()
    outages: tuple[tuple[float, float], ...] = ()
    storage: tuple[tuple[float, float], ...] = ()
    refuses: float = 0.0
    holds_requeued: float = 0.0


@dataclass
class Attempted:
    """One start as it really was, whatever the files say.

    Attributes:
        guardable: did it come so far, with Slurm and the run's files in reach, that it could leave a guard?
        silent: was the controller silent when its supervisor decided?
        known: what Slurm said of this start, the newest first.
    """

    job: str
    at: float
    fate: str
    guardable: bool = False
    silent: bool = False
    known: tuple[JobFacts, ...] = ()
    number: int | None = None
    began: str | None = None
    chosen_at: float = 0.0
    commits: list[tuple[float, int]] = field(default_factory=list)
    progress: bool = False


class Simulation:
    """One seed, its run in the working directory.

    Attributes:
        starts: every start of every job of the run, as it really was.
        fired: what came about, counted: a simulation in which nothing goes wrong proves nothing.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now0 = 1_700_000_000.0
        lag, quiet = self.random.choice([0.0, 5.0, 30.0, 60.0]), self.random.random
        self.slurm = FakeSlurm(
            self.random.randint(3, 6),
            now=self.now0,
            requeue_delay=self.random.choice([6.0, 30.0, 120.0]),
            lag=lambda: quiet() * lag,
            fault=self._fault,
            exits_come_back=self.random.random() < 0.5,
            job_requeue=self.random.random() < 0.9,
        )
        # Relative to the working directory: how long a run pauses depends on its name, and shall be the seed's alone.
        self.root = Path("run")
        self.run = RunPaths(self.root)
        self.root.mkdir()
        (self.root / "attempts").mkdir()
        (self.root / "generations").mkdir()
        self.run.run_json.write_text("{}")
        self.files = SharedFiles(self.root, lambda: quiet() * lag)
        self.character = self._character()
        self.options = self._options()
        self.user_says_no_requeue = self.random.random() < 0.03
        self.starts: list[Attempted] = []
        self.fired: Counter[str] = Counter()
        self.released: list[int] = []
        self.cancelled = False
        self._removed = False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._needs_release: set[str] = set()
        self._guardable: set[str] = set()
        """Jobs behind which a guard could be left when they were submitted."""

    # ---- what a seed is like

    def _character(self) -> Character:
        draw = self.random
        fates = {name: weight * draw.choice([0.0, 0.3, 1.0, 1.0, 3.0]) for name, weight in FATES.items()}
        fates["finish"] = max(fates["finish"], 0.5)
        refuses = draw.choice([0.0, 0.0, 0.1])
        # Where Slurm does not requeue, a filesystem is waited for half an hour; longer, and nothing can go on.
        longest = 7200 if self.slurm.job_requeue and not refuses else 1700
        later = self.now0 + draw.uniform(0, 12000)
        return Character(
            fates,
            bug_at=draw.randint(0, TOTAL) if draw.random() < 0.25 else None,
            memory_needs=draw.choice([1, 1, 1, 2, 4, 8, 64]),
            unfit_nodes=frozenset(n for n in self.slurm.nodes if draw.random() < 0.1),
            outages=((later, later + draw.uniform(10, 1500)),) if draw.random() < 0.3 else (),
            storage=((later, later + draw.uniform(60, longest)),) if draw.random() < 0.25 else (),
            refuses=refuses,
            holds_requeued=draw.choice([0.0, 0.0, 0.1]),
        )

    def _options(self) -> LaunchOptions:
        draw = self.random
        fallback = Fallback()
        if draw.random() < 0.3:
            fallback = Fallback("high", 1, after_failures=draw.choice([None, 1, 2]), after_preemptions=3,
                                after_waiting=draw.choice([None, 3600.0]))  # fmt: skip
        most = draw.choice([1, 4, 16])
        return LaunchOptions(
            ("train",), run=self.root, budgets=Budgets(DEFAULT_LIMITS, draw.choice([None, None, 20]), most),
            fallback=fallback, stay=draw.random() < 0.7, guard=draw.choice(GUARDS),
        )  # fmt: skip

    def _fault(self, words: Sequence[str]) -> Answer | None:
        if self._controller_is_silent():
            self.fired["controller silent"] += 1
            return Answer(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
        asked = list(words[:2]) == ["scontrol", "requeue"]
        if asked and self.random.random() < self.character.refuses:
            self.fired["requeue refused"] += 1
            return Answer(1, "", "Requested operation is presently disabled for job\n")
        return None

    # ---- the clock

    def at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.slurm.now + delay, next(self._order), action))

    def play(self) -> None:
        """From the first submission until nothing more can happen."""
        given = {
            "nodes": self.random.randint(1, 2), "requeue": False if self.user_says_no_requeue else None,
            "excluded": ["n1"] if self.random.random() < 0.1 else [], "limit": 7200.0,
        }  # fmt: skip
        first = self.slurm.submit("#!/bin/sh\n", **given)
        if self.options.guard:  # as `hpcresume submit` does
            told = told_behind("ALL", GUARD, first.id)
            guard = self.slurm.submit("#!/bin/sh\n", **given, depends=("afternotok", first.id),
                                      options=[*guard_words(first.id), told])  # fmt: skip
            note_waiting(self.root, Sibling(guard.id, GUARD, first.id))
            self._guardable.add(first.id)
        while self.slurm.now < self.now0 + HORIZON:
            while started := self.slurm.start_due():
                for job in started:
                    self._begin(job)
            self._look_for_held()
            waiting = [j.begin for j in self.slurm.jobs.values() if j.state == "PENDING" and not j.held]
            later = [t for t in waiting if t > self.slurm.now]
            following = min([*later, *(self._heap[:1] and [self._heap[0][0]])], default=None)
            if following is None:
                return
            self.slurm.now = max(self.slurm.now, following)
            while self._heap and self._heap[0][0] <= self.slurm.now:
                heapq.heappop(self._heap)[2]()

    def _look_for_held(self) -> None:
        """A person who sees a held job mends what was wrong and releases it, twice at the most."""
        for job in self.slurm.jobs.values():
            if job.state == "PENDING" and job.held and job.id not in self._needs_release:
                self._needs_release.add(job.id)
                if len(self.released) < 2:
                    self.at(self.random.uniform(600, 20000), lambda job=job: self._release(job))

    def _release(self, job: FakeJob) -> None:
        self._needs_release.discard(job.id)
        if job.held and job.state == "PENDING":
            self.fired["released"] += 1
            self.released.append(len(self.starts))
            self.character = replace(self.character, bug_at=None)
            job.held = ""

    # ---- one start

    def _begin(self, job: FakeJob) -> None:
        fate = self._fate(job)
        start = Attempted(job.id, self.slurm.now, fate)
        self._count(job, fate)
        self.starts.append(start)
        steps = self._attempt(job, start)
        self._resume(steps)

    def _count(self, job: FakeJob, fate: str) -> None:
        self.fired[fate] += 1
        kinds = {"afternotok": "guard started", "afterany": "resubmitted"}
        behind = next((word for word in job.options if word.startswith("--dependency")), "")
        self.fired["excluded nodes"] += set(job.excluded) not in (set(), {"n1"})
        self.fired["other partition"] += job.partition != "low"
        self.fired["fewer nodes"] += len(job.nodes) < job.needs[1]
        if job.starts == 1 and behind:
            self.fired[kinds[behind.partition("=")[2].partition(":")[0]]] += 1

    def _resume(self, steps: Generator[float, None, None]) -> None:
        for delay in steps:
            self.at(delay, lambda: self._resume(steps))
            return

    def _fate(self, job: FakeJob) -> str:
        names = list(self.character.fates)
        fate = self.random.choices(names, [self.character.fates[name] for name in names])[0]
        if set(job.nodes) & self.character.unfit_nodes and self.random.random() < 0.5:
            return "node" if len(job.nodes) > 1 else "batch-node"
        return "batch-node" if fate == "node" and len(job.nodes) == 1 else fate

    def _attempt(self, job: FakeJob, start: Attempted) -> Generator[float, None, None]:
        """The life of one start of the job; yields seconds that pass."""
        draw, host = self.random, job.nodes[0]
        if start.fate == "script-lost":
            self.slurm.lose_script(job)
            return
        environ = environment_of(self.slurm, job)
        slurm = SlurmEnvironment.from_environ(environ)
        hands = Hands(self.slurm.execute, lambda: self.slurm.now, self._sleep, environ)
        in_reach = self._all_in_reach()
        with self._looking(host):
            admission = admit(self.options, slurm, hands)
        start.guardable = admission.refused is None and in_reach and self._all_in_reach()
        if admission.refused is not None:
            start.fate = f"refused: {admission.refused.decision}"
            if admission.refused.cause is not None:
                self.fired["held before the start"] += 1
                start.fate = f"at the start → {admission.refused.cause}: {admission.refused.decision}"
            self._leave(job, admission.refused.exit_code)
            return
        options, journal = admission.options, Journal()
        pieces = int(admission.shared.get(MICRO_BATCHES, "1"))
        journal.record("started", job_id=job.id, restart=slurm.restart_count, host=host, node=host,
                       nodes=slurm.node_list)  # fmt: skip
        self._ask(job, start)
        yield draw.uniform(5, 60)
        if start.fate in ("barren", "typo"):
            child = ChildExit(137 if start.fate == "barren" else 2)
            yield from self._end(job, start, options, slurm, hands, journal, None, Evidence(child=child))
            return
        claimed = self._claim(job, host, slurm, start)
        if claimed is None:
            evidence = Evidence(child=ChildExit(73))
            yield from self._end(job, start, options, slurm, hands, journal, None, evidence)
            return
        self.fired["smaller micro-batches"] += pieces > 1
        with self._looking(host):
            open_record(journal, claimed, slurm, options)
        yield from self._train(job, start, options, slurm, hands, journal, claimed, pieces)

    def _claim(self, job: FakeJob, host: str, slurm: SlurmEnvironment, start: Attempted) -> Claimed | None:
        holder = Holder(job.id, slurm.restart_count, host, "boot", 1, "1")

        def alive(other: Holder) -> bool:
            asked = other.job_id is not None and other.job_id != job.id
            return bool(asked and job_alive(other.job_id or "", execute=self.slurm.execute, sleep=self.slurm.advance))

        with self._looking(host):
            try:
                number = claim(self.run, holder=holder, ranks=SingleRanks(), alive=alive)
            except RunBusyError:
                start.fate = "busy"
                return None
            except (RunDirectoryError, OSError):
                assert self.files.broken, "a claim fails only where the storage does"
                start.fate = "no-storage"
                return None
            chain = lineage_names(self.run)
            start.began = chain[0] if chain else None
            record_start(self.run, number, start.began, ())
        start.number, start.chosen_at = number, self.slurm.now
        return Claimed(self.run, number)

    def _train(
        self, job: FakeJob, start: Attempted, options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands,
        journal: Journal, claimed: Claimed, pieces: int,
    ) -> Generator[float, None, None]:  # fmt: skip
        """Steps, commits, and the end that fate has chosen."""
        draw, host, fate = self.random, job.nodes[0], start.fate
        parsed = parse_generation_name(start.began) if start.began else None
        step = parsed[0] if parsed else 0
        reach = TOTAL if fate == "finish" else min(TOTAL - 1, step + draw.choice([0, 0, 1, 5, 20]))
        if pieces < self.character.memory_needs:
            fate, reach = "memory", step
        elif self.character.bug_at is not None and reach >= self.character.bug_at:
            fate, reach = "crash", min(max(step, self.character.bug_at), TOTAL - 1)
            if step > self.character.bug_at:
                fate = start.fate
        start.fate = fate
        while step < reach:
            yield draw.uniform(30, 600)
            if job.leaving or job.over:
                return
            step = min(reach, step + draw.randint(1, 20))
            saves = step < reach or fate in ("preempted", "walltime", "operator-warns", "finish")
            if (saves or draw.random() < 0.5) and not self._commit(host, claimed, start, step):
                fate = start.fate = "fenced"
                break
        yield draw.uniform(5, 300)
        if job.leaving or job.over:
            return
        yield from self._fall(job, start, options, slurm, hands, journal, claimed, step)

    def _commit(self, host: str, claimed: Claimed, start: Attempted, step: int, *, blind: bool = False) -> bool:
        """One generation, as its name and the ledger tell of it; False when a newer attempt has begun."""
        with self._looking(host):
            if self.files.broken:
                return True
            if not blind and newest_attempt(self.run) > claimed.number:
                return False
            (self.run.generations / generation_name(step, claimed.number)).mkdir(exist_ok=True)
            append_line(claimed.paths.ledger, {"t": self.slurm.now, "event": "saved", "step": step})
        start.commits.append((self.slurm.now, step))
        return True

    # ---- ends

    def _fall(
        self, job: FakeJob, start: Attempted, options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands,
        journal: Journal, claimed: Claimed, step: int,
    ) -> Generator[float, None, None]:  # fmt: skip
        draw, fate, now = self.random, start.fate, self.slurm.now
        back = SessionDecision(Decision.COME_BACK, "warned", step)
        usr1, term = SignalReceived(USR1, now), SignalReceived(TERM, now + 20)
        died = {
            "crash": ChildExit(1), "killed": ChildExit(137), "memory": ChildExit(draw.choice([1, 137])),
            "no-space": ChildExit(74), "fenced": ChildExit(74), "hold-77": ChildExit(EXIT_HOLD),
        }  # fmt: skip
        raised = {"crash": Raised("ValueError", "bug"), "no-space": Raised("NoSpaceError", "full"),
                  "fenced": Raised("FencedError", "newer attempt")}  # fmt: skip
        evidence = Evidence(claimed=True, restarts=slurm.restart_count, child=ChildExit(0), child_at=now)
        end = (job, start, options, slurm, hands, journal, claimed)
        if fate == "finish":
            self.run.done.touch()
            done = SessionDecision(Decision.DONE, "all steps done", step)
            yield from self._end(*end, replace(evidence, decision=done))
        elif fate in died:
            error = raised.get(fate) or (Raised("MemoryError", "") if died[fate].code == 1 else None)
            yield from self._end(*end, replace(evidence, child=died[fate], raised=error))
        elif fate == "preempted":
            self.slurm.preempt(job, 60.0)
            yield 5
            yield from self._end(*end, replace(evidence, decision=back, signals=(usr1,)))
        elif fate == "preempted-unheard":
            self.slurm.preempt(job, 20.0)
            self.slurm.end_grace(job)
            yield from self._vanish(job)
        elif fate == "walltime":
            job.end = now + 60  # the limit is near: what fate says stands in place of hours of waiting
            yield from self._end(*end, replace(evidence, decision=back, signals=(usr1,)))
        elif fate == "walltime-unsaved":
            self.slurm.end_limit(job)
            yield from self._end(*end, replace(evidence, child=ChildExit(137), signals=(term,), child_at=now + 30))
        elif fate == "storage-hold":
            hold = SessionDecision(Decision.HOLD, "4 saves failed", step, cause_hint=Cause.STORAGE)
            yield from self._end(*end, replace(evidence, decision=hold))
        elif fate == "cancelled":
            self.cancelled = True
            self.slurm.cancel(job)
            yield from self._end(*end, replace(evidence, decision=back, signals=(term,), child_at=now + 30))
        elif fate == "operator-warns":
            yield from self._end(*end, replace(evidence, decision=back, signals=(usr1,)))
        elif fate == "operator-requeues":
            # A person whose wish is refused asks for a save instead.
            signal = usr1 if self.slurm.execute(["scontrol", "requeue", job.id], 10).code else term
            yield from self._end(*end, replace(evidence, decision=back, signals=(signal,), child_at=now + 30))
        elif fate == "node":
            self._lose(job.nodes[-1])
            yield from self._end(*end, replace(evidence, child=ChildExit(137), signals=(term,), child_at=now + 30))
        else:
            yield from self._lose_batch_node(job, start, claimed, step, zombie=fate == "split-brain")

    def _lose(self, node: str) -> None:
        self.slurm.lose_node(node)
        gone_for_good = self.random.random() < 0.1 and sum(n.up for n in self.slurm.nodes.values()) > 2
        if gone_for_good:
            self.slurm.remove_node(node)
        else:
            self.at(self.random.uniform(60, 5000), lambda: self.slurm.return_node(node))

    def _lose_batch_node(
        self, job: FakeJob, start: Attempted, claimed: Claimed, step: int, *, zombie: bool
    ) -> Generator[float, None, None]:
        """The supervisor is gone, or cut off with its ranks alive: those go on and commit until they notice."""
        host = job.nodes[0]
        self._lose(host)
        yield from self._vanish(job)
        while zombie and step < TOTAL - 1:
            yield self.random.uniform(20, 200)
            step += 1
            newer = [other for other in self.starts if (other.number or 0) > claimed.number]
            # What it reads of newer claims may be a minute old: until then it commits without knowing.
            blind = all(self.slurm.now - other.chosen_at < 60 for other in newer)
            if not self._commit(host, claimed, start, step, blind=blind):
                return

    def _vanish(self, job: FakeJob) -> Generator[float, None, None]:
        yield 5
        if not job.requeue and not job.over:
            job.leaving = True
        self.slurm.gone(job)

    def _end(
        self, job: FakeJob, start: Attempted, options: LaunchOptions, slurm: SlurmEnvironment, hands: Hands,
        journal: Journal, claimed: Claimed | None, evidence: Evidence,
    ) -> Generator[float, None, None]:  # fmt: skip
        """What a supervisor does at the end: ask, conclude, carry out; then it leaves, or is killed."""
        again = stands_behind(hands.environ, slurm) is not None
        self._ask(job, start, evidence)
        evidence = replace(evidence, job=start.known, restarts=slurm.restart_count, again=again)
        if was_refused(evidence):
            with self._looking(job.nodes[0] if job.nodes else "n1"):
                aside = step_aside(options, slurm, self.run, hands, refused=True)
            if aside is not None:
                self.fired["in other hands"] += 1
                start.fate = f"refused: {aside.decision}"
                self._leave(job, aside.exit_code)
                return
        before, in_reach = set(self.slurm.jobs), self._all_in_reach()
        start.silent = self._controller_is_silent()
        with self._looking(job.nodes[0] if job.nodes else "n1"):
            case = conclude(options, slurm, claimed, evidence, journal.record)
            carried = carry_out(case, hands)
        if in_reach and self._all_in_reach():
            self._guardable |= set(self.slurm.jobs) - before
        start.fate = f"{start.fate} → {case.ending.cause.value}: {case.verdict.decision.value}"
        yield self.random.uniform(0, 5)
        if carried.awaits_end and job.preempted_at is not None:
            self.fired["waited for Slurm's end"] += 1
            self.slurm.end_grace(job)
        if job.leaving:
            if carried.back and self.random.random() < self.character.holds_requeued:
                self.fired["requeued but held"] += 1
                job.held = "launch failed requeued held"
            self.slurm.gone(job)
        elif not job.over:
            self._leave(job, EXIT_DONE if case.verdict.decision is Decision.DONE else case.verdict.exit_code)

    def _leave(self, job: FakeJob, code: int) -> None:
        if job.leaving:
            self.slurm.gone(job)
        else:
            self.slurm.finish(job, code)

    def _ask(self, job: FakeJob, start: Attempted, ended: Evidence | None = None) -> None:
        """As the supervisor's desk does: an answer comes before the earlier ones, and silence leaves those.

        At the beginning nobody waits for the answer. At the end it is waited for, tells of the nodes too, and is no
        older than the end.
        """
        sleep = self.slurm.advance if ended is not None else lambda seconds: None
        try:
            facts = show_job(job.id, name=job.name, execute=self.slurm.execute, sleep=sleep)
        except SlurmError:
            return
        facts = replace(facts, asked_at=max(self.slurm.now, ended.child_at or 0.0 if ended is not None else 0.0))
        if job.nodes and (ended is not None or facts.state != "RUNNING"):
            lost = down_nodes(",".join(job.nodes), execute=self.slurm.execute, sleep=sleep)
            facts = replace(facts, down_nodes=lost)
        start.known = (facts, *start.known)

    def _looking(self, host: str):  # type: ignore[no-untyped-def]
        self.files.broken = broken = self._storage_is_away()
        self.fired["storage away"] += broken
        return self.files.seen_by(host, self.slurm.now)

    def _controller_is_silent(self) -> bool:
        return any(begin <= self.slurm.now < end for begin, end in self.character.outages)

    def _all_in_reach(self) -> bool:
        return not (self._controller_is_silent() or self._storage_is_away())

    def _storage_is_away(self) -> bool:
        return any(begin <= self.slurm.now < end for begin, end in self.character.storage)

    def _sleep(self, seconds: float) -> None:
        """While a supervisor waits, its filesystem may come back."""
        self.slurm.advance(seconds)
        if not self._storage_is_away():
            self.files.come_back()

    # ---- what must hold at the end

    def verdict(self) -> str:
        """How the run ended up: done, held, ended, cancelled, by choice, unseen (and why), or lost."""
        if self.run.done.exists():
            return "done"
        jobs = list(self.slurm.jobs.values())
        if any(job.state == "PENDING" and job.held for job in jobs):
            return "held"
        if self.cancelled:
            return "cancelled"
        if any(job.state == "PENDING" for job in jobs):
            return "lost: waits for ever"
        decided = max((i for i, start in enumerate(self.starts) if " → " in start.fate), default=-1)
        if decided >= 0 and ": hold" in self.starts[decided].fate and max(self.released, default=0) <= decided:
            return "ended"  # whatever Slurm did with the job afterwards: nobody was to train any more
        last = next((start for start in reversed(self.starts) if "refused" not in start.fate), None)
        if last is None:
            return "lost: every start was refused"
        if self.user_says_no_requeue:
            return "by choice"
        if last.fate.startswith("operator-") and "operator: come-back" in last.fate:
            return "stopped by a person"
        why = self._unseen(last)
        return f"unseen: {why}" if why else f"lost after {last.fate}"

    @property
    def guarded(self) -> bool:
        """Is a guard left behind every job of the run: asked for, or since the cluster forbids requeues?"""
        return self.options.guard is True or (self.options.guard is None and not self.slurm.job_requeue)

    def _unseen(self, last: Attempted) -> str:
        """Why nobody of ours was left to bring the job back, one of `UNSEEN`; "" when somebody was.

        docs/REQUEUE.md has these in a table, with what to do. With a guard only those are taken for unseen behind
        whose job no guard could be left, whatever else is wrong with the cluster at other times.
        """
        why = ""
        if last.fate == "script-lost":
            why = NEVER_RAN
        elif last.fate in LOST and not self.slurm.jobs[last.job].requeue:
            why = DIED
        elif last.fate.partition(" → ")[0] in TERMED and last.silent and not self.guarded:
            return NOT_TOLD  # scancel looks the same from inside, and nobody tells which it is
        if not why or not self.guarded:
            return why
        of = self._stands_behind(last.job)
        if any(start.guardable for start in self.starts if start.job == last.job):
            return ""
        if of:
            return TWICE if [start.fate for start in self.starts if start.job == of][-1] in LOST else ""
        return "" if last.job in self._guardable else OUT_OF_REACH

    def _stands_behind(self, job_id: str) -> str:
        """The job behind which this one was left, as a guard or to ask for less; "" for any other job."""
        told = (
            re.search(r"HPCRESUME_BEHIND=(?:guard|fallback):(\w+)", word) for word in self.slurm.jobs[job_id].options
        )
        return next((match[1] for match in told if match), "")

    def free_of_loops(self) -> int:
        """The longest row of starts without checkpoint progress that no budget let go for free."""
        longest = count = 0
        best = -1
        for index, start in enumerate(self.starts):
            if index in self.released:
                count = 0
            reached = max((step for _, step in start.commits), default=-1)
            if reached > best:
                best, count = reached, 0
            elif start.fate.split(" → ")[0] not in FREE and not start.fate.startswith(("refused", "at the start")):
                count += 1
            longest = max(longest, count)
        return longest

    def two_writers(self) -> list[str]:
        """Generations in one chain that an older attempt committed after a newer one of it had chosen its start."""
        self.files.settle()
        self.fired["orphans"] += len(list(self.run.generations.iterdir())) - len(lineage_names(self.run))
        begun = {start.number: start.chosen_at for start in self.starts if start.number is not None}
        when = {(step, start.number): at for start in self.starts for at, step in start.commits}
        faults, newest, chain = [], None, _chain(self.run)
        for name in lineage_names(self.run):
            step, attempt = parse_generation_name(name) or (0, 0)
            after = [n for n in begun if newest is not None and attempt < n <= newest and n in chain]
            if any(when[step, attempt] > begun[n] for n in after):
                faults.append(name)
            newest = max(newest or attempt, attempt)
        return faults

    def story(self) -> str:
        """What happened, for a failing seed."""
        lines = [f"{start.at - self.now0:9.0f} s  job {start.job}  attempt {start.number}  {start.fate}  from "
                 f"{start.began}  commits {[step for _, step in start.commits]}" for start in self.starts]  # fmt: skip
        jobs = [f"job {j.id} {j.state} {j.held} excludes {j.excluded} needs {j.needs} depends {j.depends}"
                for j in self.slurm.jobs.values()]  # fmt: skip
        return "\n".join([str(self.options), str(self.character), *lines, *jobs])


def _chain(run: RunPaths) -> set[int]:
    """Attempts in the lineage's chain of starts, from the newest back."""
    numbers = sorted(run.attempt_numbers(), reverse=True)
    chain: set[int] = set()
    following = numbers[0] if numbers else None
    while following is not None:
        chain.add(following)
        try:
            name = json.loads(run.attempt(following).start.read_bytes())["generation"]
        except (OSError, ValueError, KeyError):
            break
        parsed = parse_generation_name(name) if name else None
        following = parsed[1] if parsed else None
    return chain


def main(seeds: Sequence[str]) -> None:
    """`python -m tests.reliability.simulated_run SEED…`: the story of each seed."""
    for seed in map(int, seeds):
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["XDG_STATE_HOME"] = scratch
            os.chdir(scratch)
            simulation = Simulation(seed)
            simulation.play()
            found = simulation.verdict(), simulation.free_of_loops(), simulation.two_writers()
            print(f"seed {seed}: {found}\n{simulation.story()}\n{dict(simulation.fired)}")
            os.chdir("/")


if __name__ == "__main__":
    main(sys.argv[1:])
