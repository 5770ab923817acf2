"""The policy as one table: a situation, and what becomes of the job. Read it before you change anything in policy/."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hpcresume.model import Cause, Decision
from hpcresume.policy.budgets import DEFAULT_LIMITS, Budgets, PastAttempt, micro_batches
from hpcresume.policy.cause import ChildExit, Evidence, Raised, SessionDecision, SignalReceived, name_cause
from hpcresume.policy.fallback import Fallback, fallback_due
from hpcresume.policy.job_facts import JobFacts
from hpcresume.policy.pauses import Pauses, pause_before_restart
from hpcresume.policy.requeue import decide, uncounted

NOW = 1_700_000_000.0
USR1, TERM = SignalReceived(10, NOW), SignalReceived(15, NOW)
BACK = SessionDecision(Decision.COME_BACK, "warned", 40)

# ---- how attempts end: the evidence as a supervisor has it

PREEMPTED = Evidence(claimed=True, decision=BACK, child=ChildExit(0), signals=(USR1,),
                     job=(JobFacts("RUNNING", preempted_at=NOW),))  # fmt: skip
LIMIT = Evidence(claimed=True, decision=BACK, child=ChildExit(0), signals=(USR1,),
                 job=(JobFacts("RUNNING", start=NOW - 3600, end=NOW + 60),))  # fmt: skip
NODE = Evidence(claimed=True, child=ChildExit(137), signals=(TERM,), child_at=NOW + 5,
                job=(JobFacts("COMPLETING", restarts=1, down_nodes=("n2",)),))  # fmt: skip
CRASH = Evidence(claimed=True, child=ChildExit(1), raised=Raised("ValueError", "bug"))
KILLED = Evidence(claimed=True, child=ChildExit(137))
MEMORY = Evidence(claimed=True, child=ChildExit(1), raised=Raised("MemoryError", ""))
CUDA = Evidence(claimed=True, child=ChildExit(1), raised=Raised("RuntimeError", "CUDA error: out of memory"))
KERNEL = Evidence(claimed=True, child=ChildExit(137), out_of_memory=("the kernel killed 1 process(es)",))
FULL = Evidence(claimed=True, child=ChildExit(74), raised=Raised("NoSpaceError", "full"))
GAVE_UP = Evidence(claimed=True, decision=SessionDecision(Decision.HOLD, "4 saves failed", cause_hint=Cause.STORAGE),
                   child=ChildExit(0))  # fmt: skip
RESERVED = Evidence(claimed=True, child=ChildExit(77))
REFUSED = Evidence(claimed=True, child=ChildExit(1), raised=Raised("ConfigError", "every: nonsense"))
STILL_HELD = Evidence(decision=SessionDecision(Decision.HOLD, "held"), child=ChildExit(0), restarts=1)
NO_RUN = Evidence(decision=SessionDecision(Decision.HOLD, "could not begin", exit_code=73), child=ChildExit(0))
TYPO = Evidence(child=ChildExit(2))
NEVER_UP = Evidence(child=ChildExit(137))
CANCELLED = Evidence(claimed=True, decision=BACK, child=ChildExit(0), signals=(TERM,), child_at=NOW + 5,
                     job=(JobFacts("CANCELLED"),))  # fmt: skip
WARNED = Evidence(claimed=True, decision=BACK, child=ChildExit(0), signals=(USR1,), job=(JobFacts("RUNNING"),))
REQUEUED = Evidence(claimed=True, decision=BACK, child=ChildExit(0), signals=(TERM,), child_at=NOW + 5,
                    job=(JobFacts("COMPLETING", restarts=1),))  # fmt: skip
SCRIPT_DIED = replace(CANCELLED, job=(JobFacts("COMPLETING", "JobLaunchFailure", killed_by=10),))
SCRIPT_DIED_PREEMPTED = replace(SCRIPT_DIED, job=(replace(SCRIPT_DIED.job[0], preempted_at=NOW),))
PREEMPTED_FOR_GOOD = replace(CANCELLED, job=(JobFacts("COMPLETING", requeueable=True, preempted_at=NOW - 20),
                                             JobFacts("RUNNING", preempted_at=NOW - 20, end=NOW)))  # fmt: skip
"""PreemptMode=CANCEL: the grace was over."""
NO_GRACE_FOR_GOOD = replace(CANCELLED, job=(JobFacts("COMPLETING", requeueable=True, preempted_at=NOW),))
CANCELLED_IN_GRACE = replace(PREEMPTED_FOR_GOOD, job=(PREEMPTED_FOR_GOOD.job[0],
                                                      replace(PREEMPTED_FOR_GOOD.job[1], end=NOW + 30)))  # fmt: skip
SHUT_DOWN = replace(CANCELLED, job=(JobFacts("RUNNING", end=NOW + 7200, asked_at=NOW + 1),))
"""TERM came, and Slurm knows of no end: somebody switches the node off."""
SHUT_DOWN_UNSAVED = replace(SHUT_DOWN, decision=None, child=ChildExit(143))
ASKED_BEFORE = replace(SHUT_DOWN, job=(replace(SHUT_DOWN.job[0], asked_at=NOW - 100),))
FINISHED = Evidence(claimed=True, decision=SessionDecision(Decision.DONE, "all steps"), child=ChildExit(0))


# ---- what happened before: a letter an attempt, "x3" three of them, "+" after it made progress, "|" a release

CAUSES = {
    "p": Cause.PREEMPTED, "c": Cause.CRASH, "n": Cause.NODE_FAILURE, "s": Cause.STORAGE, "w": Cause.WALLTIME,
    "u": Cause.UNKNOWN, "o": Cause.OPERATOR, "m": Cause.OUT_OF_MEMORY, "k": Cause.CRASH, "b": Cause.CRASH,
}  # fmt: skip
"""k: a crash by SIGKILL without a word; b: a start that claimed no attempt."""


def history(text: str) -> tuple[PastAttempt, ...]:
    past: list[PastAttempt] = []
    step, release = 0, False
    for token in text.split():
        if token == "|":
            past[-1], release = replace(past[-1], decided="hold", kept=True), True
            continue
        letter, _, count = token.rstrip("+").partition("x")
        for _ in range(int(count or 1)):
            step += 10 * token.endswith("+")
            past.append(PastAttempt(
                0 if letter == "b" else len(past) + 1, CAUSES[letter], step if token.endswith("+") else None,
                memory=letter in "mk", released=release,
            ))  # fmt: skip
            release = False
    return tuple(past)


@dataclass(frozen=True)
class Row:
    """A situation and what follows: `back`, `back-by-slurm`, `stopped`, `kept` (held in the queue), `ends CODE` or
    `done`; the longest pause before the next start, in minutes; and into how many pieces its batches are cut.
    """

    what: str
    end: Evidence
    before: str = ""
    follows: str = "back"
    pause: int = 0
    committed: int | None = None
    most: int = 1
    restarts: int | None = None
    pieces: int = 1


TABLE = (
    Row("finished", FINISHED, follows="done"),
    Row("finished after a hundred crashes", FINISHED, "cx50", follows="done"),
    # the cluster's doing is free
    Row("preempted", PREEMPTED),
    Row("preempted for the thousandth time", PREEMPTED, "px1000"),
    Row("preempted after two crashes", PREEMPTED, "cx2"),
    Row("preempted, and no restarts are left", PREEMPTED, "cx2", restarts=1),
    Row("preempted, and the script died of the warning", SCRIPT_DIED_PREEMPTED),
    Row("warned by a person, and the script died of it", SCRIPT_DIED),
    Row("preempted where Slurm starts nothing again", PREEMPTED_FOR_GOOD),
    Row("preempted there without a grace", NO_GRACE_FOR_GOOD),
    Row("a TERM that is not Slurm's", SHUT_DOWN),
    Row("a TERM that is not Slurm's, and nothing saved", SHUT_DOWN_UNSAVED, pause=1),
    # a bug
    Row("crashed", CRASH, pause=1),
    Row("crashed twice", CRASH, "c", pause=2),
    Row("crashed three times", CRASH, "cx2", follows="kept"),
    Row("crashed three times, preempted in between", CRASH, "c p c px5", follows="kept"),
    Row("crashed often, but got on each time", CRASH, "c+ c+ c+ c+", committed=100),
    Row("crashed twice, then got on and crashed", CRASH, "cx2", committed=10),
    Row("crashed at the same step again", CRASH, "c+ c c", committed=10, follows="kept"),
    Row("crashed twice without a record of an attempt", CRASH, "bx2", follows="kept"),
    Row("crashed after a release", CRASH, "cx3 |", pause=1),
    Row("crashed three times after a release", CRASH, "cx3 | cx2", follows="kept"),
    # nodes
    Row("node lost", NODE),
    Row("fourth node lost", NODE, "nx3"),
    Row("fifth node lost", NODE, "nx4", follows="kept"),
    # memory
    Row("out of memory", MEMORY, pause=1),
    Row("out of memory again", MEMORY, "m", follows="kept"),
    Row("out of memory by the kernel", KERNEL, "m", follows="kept"),
    Row("out of memory by CUDA", CUDA, "m", follows="kept"),
    Row("out of memory, and batches can be cut", MEMORY, most=8, pieces=2),
    Row("out of memory, cut into 4 already", MEMORY, "mx2", most=8, pieces=8),
    Row("out of memory with the smallest pieces", MEMORY, "mx3", most=8, pause=1, pieces=8),
    Row("out of memory with the smallest pieces again", MEMORY, "mx4", most=8, follows="kept", pieces=8),
    Row("killed without a word, and batches can be cut", KILLED, "kx2", most=8, pieces=8),
    Row("killed without a word, and they cannot", KILLED, "kx2", follows="kept"),
    Row("a bug, and batches could be cut", CRASH, "cx2", most=8, follows="kept"),
    # storage
    Row("disk full", FULL, pause=5),
    Row("disk full for the fourth time", FULL, "sx3", pause=40),
    Row("disk full for the fifth time", FULL, "sx4", follows="kept"),
    Row("the session gave up saving", GAVE_UP, follows="kept"),
    # time
    Row("time limit", LIMIT, committed=40),
    Row("time limit, nothing saved, for the third time", LIMIT, "wx2", follows="kept"),
    # everything in turn
    Row("eleven failures of all kinds", CRASH, "n s u w n s n o o o", pause=1),
    Row("twelve failures of all kinds", CRASH, "n s u w n s n o o o o", follows="kept"),
    Row("more restarts than allowed", CRASH, "c+ n+ c+", committed=100, restarts=3, follows="kept"),
    Row("as many restarts as allowed", CRASH, "c+ n+", committed=100, restarts=3),
    Row("restarts are counted anew after a release", CRASH, "c+ n+ c+ |", committed=100, restarts=3),
    # what every attempt would meet again
    Row("exit code 77 of the training", RESERVED, follows="ends 77"),
    Row("exit code 77 after crashes", RESERVED, "cx2", follows="ends 77"),
    Row("an option is refused", REFUSED, follows="ends 78"),
    Row("Slurm started a held run again by itself", STILL_HELD, follows="ends 77"),
    Row("no such directory", NO_RUN, follows="ends 73"),
    Row("no such directory on a restart", replace(NO_RUN, restarts=2), "c+", pause=5),
    Row("no such directory on a restart, for the fifth time", replace(NO_RUN, restarts=4), "sx4", follows="kept"),
    Row("a typo in the command", TYPO, follows="kept"),
    Row("no session in a new job of a run that has begun before", TYPO, "c+", pause=1),
    Row("a typo after ranks that came up", replace(TYPO, restarts=3), "c+", pause=1),
    Row("ranks that never come up", NEVER_UP, pause=1),
    Row("ranks that never come up, for the third time", replace(NEVER_UP, restarts=2), "bx2", follows="kept"),
    # people
    Row("cancelled", CANCELLED, follows="stopped"),
    Row("cancelled in the grace of a preemption", CANCELLED_IN_GRACE, follows="stopped"),
    Row("a TERM, and Slurm was asked before it only", ASKED_BEFORE, follows="stopped"),
    Row("warned by a person", WARNED, committed=40),
    Row("warned by a person, for the tenth time without progress", WARNED, "ox9", follows="kept"),
    Row("requeued by a person", REQUEUED, "cx2", follows="back-by-slurm"),
    Row("Ctrl-C", replace(WARNED, interrupted=True), follows="stopped"),
    Row("told to end, and nobody says why", replace(CANCELLED, job=()), follows="stopped"),
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
def test_what_follows_an_end(row: Row):
    ending, past = name_cause(row.end), history(row.before)
    budgets = Budgets(DEFAULT_LIMITS, row.restarts, row.most)
    verdict = decide(ending, row.end, past, row.committed, budgets)
    assert followed(verdict, row.end) == row.follows, verdict
    seconds = pause_before_restart(ending.cause, verdict.barren, "run", Pauses(60.0, 1e9)) if verdict.requeue else 0
    assert row.pause * 30 <= seconds <= row.pause * 60, seconds
    this = PastAttempt(len(past) + 1, ending.cause, row.committed, memory="memory" in str(ending) or row.end is KILLED)
    assert micro_batches((*past, this), row.most) == row.pieces
    assert len(verdict.reason) > 5


def followed(verdict, evidence: Evidence) -> str:
    if verdict.decision is Decision.DONE:
        return "done"
    if verdict.decision is Decision.HOLD:
        return "kept" if verdict.keep else f"ends {verdict.exit_code}"
    if verdict.requeue:
        return "back"
    return "back-by-slurm" if evidence.job and evidence.job[0].restarts > evidence.restarts else "stopped"


def test_a_start_of_which_no_record_can_be_kept_comes_back_a_few_times_only():
    verdict = decide(name_cause(NEVER_UP), NEVER_UP, (), None, Budgets())
    assert [uncounted(verdict, restarts).decision for restarts in range(5)] == [
        Decision.COME_BACK, Decision.COME_BACK, Decision.COME_BACK, Decision.HOLD, Decision.HOLD,
    ]  # fmt: skip
    assert uncounted(verdict, 3).keep


FALLBACK = Fallback("high", after_failures=2, after_preemptions=3)


@pytest.mark.parametrize(
    ("fallback", "before", "due"),
    [
        (FALLBACK, "c", ""),
        (FALLBACK, "c n", "2 failures in a row"),
        (FALLBACK, "c c+", ""),
        (FALLBACK, "c+ c n", "2 failures in a row"),
        (FALLBACK, "c p c", "2 failures in a row"),
        (FALLBACK, "w w", ""),
        (FALLBACK, "px2", ""),
        (FALLBACK, "p+ p+ p+", "3 preemptions"),
        (FALLBACK, "px3 | c", ""),
        (FALLBACK, "c | c", ""),
        (Fallback(nodes=1, after_failures=1), "c", "1 failures in a row"),
        (Fallback(nodes=1, after_waiting=60), "cx9 px9", ""),
        (Fallback(), "cx9 px9", ""),
    ],
)
def test_when_other_resources_are_asked_for(fallback: Fallback, before: str, due: str):
    assert fallback_due(fallback, history(before)) == due
