"""The supervisor of running ranks: passes warnings on, keeps the record, waits for the end.

Owns the loop and what each signal means. Knows neither torch nor generations; all it learns of the training
stands in small files that rank 0 leaves.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

from hpcresume.io.durable import write_durably
from hpcresume.io.outputs import output_files
from hpcresume.io.paths import RunPaths
from hpcresume.launch.deadline import deadline_facts
from hpcresume.launch.early_warning import EarlyWarning, too_short
from hpcresume.launch.facts import FactsDesk, asker
from hpcresume.launch.inbox import ENDING, WARNINGS, Taken, take_signal
from hpcresume.launch.journal import Journal, say
from hpcresume.launch.memory import memory_kills
from hpcresume.launch.opening import open_record
from hpcresume.launch.options import LaunchOptions
from hpcresume.launch.ranks import RunningRanks, Warner
from hpcresume.launch.records import rank_warnings
from hpcresume.launch.rendezvous import Claimed, Rendezvous
from hpcresume.launch.siblings import stands_behind
from hpcresume.policy.cause import Evidence, SignalReceived, name_cause
from hpcresume.policy.job_facts import JobFacts
from hpcresume.slurm.commands import RequeueAnswer
from hpcresume.slurm.environment import SlurmEnvironment

__all__ = ["Supervisor"]

LOOK_EVERY = 0.5
"""Seconds between looks at small files while nothing happens; a signal or the ranks' end wakes at once."""
LOOK_UNCLAIMED = 0.1
"""Seconds between looks until the attempt is claimed: a node lost before its record begins leaves no trace."""
LOOK_SOON = 0.02
"""Seconds between looks while a warning is on its way or Slurm is being asked."""

END_TOGETHER = 0.5
"""How long an end sequence is waited for that Slurm says it has begun."""

MOST_RECORDED = 50
"""Warnings that are recorded; more are passed on all the same."""


class Supervisor:
    """One start of the ranks, from their first second to their last.

    Attributes:
        evidence: what is known so far of why it ends.
        requeued: Slurm's answer to the wish to start the job again, once asked.
        log: the files that this process and its ranks write to, with where that began.
    """

    def __init__(
        self, options: LaunchOptions, slurm: SlurmEnvironment, rendezvous: Rendezvous, ranks: RunningRanks, kind: str
    ) -> None:
        self.options = options
        self.slurm = slurm
        self.rendezvous = rendezvous
        self.ranks = ranks
        self.journal = Journal()
        behind = stands_behind(os.environ, slurm)
        self.evidence = Evidence(restarts=slurm.restart_count, again=behind is not None, kind=kind)
        self.memory_before = memory_kills()
        self.log = output_files()
        self.desk = FactsDesk(asker(slurm))
        self.requeued: RequeueAnswer | None = None
        self._warner = Warner(ranks.send, ranks.listens, lambda: rendezvous.claimed() is not None)
        self._clock = EarlyWarning(options.warn_before)
        self._started = time.time()
        self._measured_the_allocation = False
        self._attached = False
        self._ledger_size = 0
        self.journal.record(
            "started",
            kind=kind,
            job_id=slurm.job_id,
            restart=slurm.restart_count,
            host=os.uname().nodename,
            node=slurm.node_name,
            nodes=slurm.node_list,
            pid=os.getpid(),
            log=self.log,
        )
        self.desk.ask()  # a preemption may have begun before we could hear its warning

    def turn(self) -> bool:
        """Wait a moment for a signal or news and answer it; False once the ranks have ended."""
        child = self.ranks.poll()
        if child is None:
            taken = take_signal(self._patience())
            if taken is not None:
                self._on_signal(taken)
            self._warner.advance()
        else:
            self.evidence = replace(self.evidence, child=child, child_at=time.time())
        self._look()
        return child is None

    def _patience(self) -> float:
        """Seconds until the next look."""
        if self._warner.waiting or self.desk.waiting:
            return LOOK_SOON
        return LOOK_EVERY if self._attached else LOOK_UNCLAIMED

    def hear_the_end(self) -> None:
        """Take in the end sequence that comes with the ranks' end: mpiexec's daemons get it a moment before us."""
        facts = self.desk.known[0] if self.desk.known else None
        if facts is None or facts.state == "RUNNING" or self.evidence.signals:
            return
        taken = take_signal(END_TOGETHER)
        while taken is not None and taken.number not in ENDING:
            taken = take_signal(0.0)
        if taken is not None:
            received = SignalReceived(int(taken.number), taken.at)
            self.evidence = replace(self.evidence, signals=(received,))
            self.journal.record("warning-received", signal=taken.number.name, at=taken.at)

    @property
    def ending_since(self) -> float | None:
        """When the scheduler's end sequence began, seconds since the epoch; None before."""
        return next((s.at for s in self.evidence.signals if s.signal in ENDING), None)

    @property
    def claimed(self) -> Claimed | None:
        """The attempt that this start became, once known."""
        return self.rendezvous.claimed()

    @property
    def _run(self) -> RunPaths | None:
        """The run, as soon as anybody has said which."""
        if self.claimed is not None:
            return self.claimed.run
        return RunPaths(self.options.run) if self.options.run is not None else None

    def _on_signal(self, taken: Taken) -> None:
        if taken.number == signal.SIGINT:
            self._on_interrupt()
        elif taken.number in WARNINGS:
            self._on_warning(taken, int(taken.number))
        elif taken.number in ENDING:
            # srun answers a TERM of its own by KILL to its tasks, mpiexec likewise: the ranks get a warning
            # instead, once, and every second until the KILL is theirs.
            self._on_warning(taken, 0 if self._warner.warned else int(signal.SIGUSR1))
        elif taken.number == signal.SIGCONT and not self._warner.warned:
            # Slurm sends it before every warning of a preemption; the warning itself has been seen to get lost.
            self.desk.ask()

    def _on_warning(self, taken: Taken, forward: int) -> None:
        if self.rendezvous.decision() is not None:
            forward = 0  # the ranks are leaving; a signal now could only kill an interpreter that shuts down
        if forward:
            self._warner.warn(forward)
        count = len(self.evidence.signals)
        if count >= MOST_RECORDED and taken.number not in ENDING:
            return
        received = SignalReceived(int(taken.number), taken.at)
        self.evidence = replace(self.evidence, signals=(*self.evidence.signals, received))
        self.journal.record("warning-received", signal=taken.number.name, at=taken.at)
        if forward:
            self.journal.record("forwarded", signal=signal.Signals(forward).name)
        if count == 0 or taken.number in ENDING:
            say(f"{taken.number.name} received" + (", the ranks are told" if forward else ""))
            self.desk.ask()
            self.write_deadline()
        if taken.number in ENDING:
            self._name_cause_early()

    def _on_interrupt(self) -> None:
        """Ctrl-C: first save and stop, the second time at once."""
        if self.evidence.interrupted:
            say("interrupted again: the ranks are killed")
            self.ranks.kill()
            return
        say("interrupted: the ranks save and stop (once more kills them)")
        self.evidence = replace(self.evidence, interrupted=True)
        self.journal.record("warning-received", signal="SIGINT", at=time.time())
        self._warner.warn(int(signal.SIGUSR1))

    def _look(self) -> None:
        """Take in what has become known since: the attempt's directory, Slurm's answer."""
        claimed = self.claimed
        if claimed is not None and not self._attached:
            self._attach(claimed)
        self._hear_of_warned_ranks()
        facts = self.desk.collect()
        if facts is not None:
            self.evidence = replace(self.evidence, job=self.desk.known)
            self.journal.record("slurm", state=facts.state, reason=facts.reason, start=facts.start, end=facts.end,
                                limit=facts.limit, preempted_at=facts.preempted_at)  # fmt: skip
            self.write_deadline()
            if facts.being_preempted:
                self._make_up_for_a_lost_warning(facts)
            if self.ending_since is not None:
                self._name_cause_early()
        self._watch_the_end()

    def _watch_the_end(self) -> None:
        """Tell the ranks by our own clock, where nobody else has, so long before the end as this run needs."""
        job, run = self.desk.known[0] if self.desk.known else None, self._run
        if job is None or run is None or self.rendezvous.decision() is not None:
            return
        if self._warner.warned or self.evidence.warning is not None:
            return
        now = time.time()
        if not self._measured_the_allocation:
            self._measured_the_allocation = True
            self._measure_the_allocation(run, job)
        look = self._clock.look(run, job, now)
        if look.lead is not None and look.news:
            self.journal.record("lead", seconds=look.lead.seconds, why=look.lead.why, end=job.end)
        if look.ask:
            self.desk.ask()
        if look.lead is None or not look.warn:
            return
        say(f"{look.left:.0f} s before the end of the allocation ({look.lead.why}): the ranks are told")
        self.evidence = replace(self.evidence, clock=SignalReceived(int(signal.SIGUSR1), now))
        self.journal.record("warning-by-clock", left=look.left, lead=look.lead.seconds, why=look.lead.why, at=now)
        self.journal.record("forwarded", signal=signal.SIGUSR1.name)
        self._warner.warn(int(signal.SIGUSR1))
        self.write_deadline()

    def _measure_the_allocation(self, run: RunPaths, job: JobFacts) -> None:
        """What a person would want to know at the start: the allocation is too short, or its limit stays lowered."""
        short = too_short(run, job, self._started)
        if short is not None:
            self.journal.record("short-allocation", left=short.left, needed=short.needed, setup=short.setup)
            say(str(short))
        if job.least is not None and job.limit == job.least and not self.options.time_limit:
            say("Slurm has lowered the time limit to --time-min, for all further starts too; "
                "hpcresume launch --time-limit=TIME lets it be raised again")  # fmt: skip

    def _hear_of_warned_ranks(self) -> None:
        """A warning that goes to the ranks alone (`--signal` without B:, TERM in a grace) is known from their record.

        They are at work on it; what they cannot know is until when they have, so Slurm is asked.
        """
        if self.claimed is None or self.evidence.warning is not None:
            return
        try:
            size = self.claimed.paths.ledger.stat().st_size
        except OSError:
            return
        if size == self._ledger_size:
            return
        self._ledger_size = size
        heard = rank_warnings(self.claimed.paths)
        if heard:
            self.evidence = replace(self.evidence, rank_warnings=heard)
            self.desk.ask()

    def _make_up_for_a_lost_warning(self, facts: JobFacts) -> None:
        """The warning came before we could listen, and the script's trap swallowed it, or only the CONT before it
        came: without us the ranks would train on until the KILL.
        """
        if self._warner.warned or self.evidence.rank_warnings or self.rendezvous.decision() is not None:
            return
        say("Slurm is preempting the job, and its warning has not come here: the ranks are told")
        self.journal.record("warning-lost", preempted_at=facts.preempted_at)
        self.journal.record("forwarded", signal=signal.SIGUSR1.name)
        self._warner.warn(int(signal.SIGUSR1))

    def _attach(self, claimed: Claimed) -> None:
        self._attached = True
        self.evidence = replace(self.evidence, claimed=True)
        self.rendezvous.remove_older()
        open_record(self.journal, claimed, self.slurm, self.options)
        self.write_deadline()

    def _name_cause_early(self) -> None:
        """The KILL may come before the ranks are done: say now what is known, the end may correct it."""
        heard = rank_warnings(self.claimed.paths) if self.claimed is not None else ()
        self.evidence = replace(self.evidence, rank_warnings=heard)
        ending = name_cause(self.evidence)
        self.journal.record("cause", cause=ending.cause.value, evidence=list(ending.evidence), early=True)

    def write_deadline(self) -> None:
        """deadline.json for rank 0, as well as it is known now."""
        facts = deadline_facts(self.evidence)
        if facts is None or self.claimed is None:
            return
        try:
            write_durably(self.claimed.paths.deadline, facts)
        except OSError as error:
            say(f"the deadline cannot be written: {error}")
