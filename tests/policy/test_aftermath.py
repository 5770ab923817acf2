"""Why an attempt ended that left nobody to say so, as one table."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from hpcresume.model import Cause
from hpcresume.policy.aftermath import Traces, infer
from hpcresume.policy.cause import Raised, SignalReceived

USR1, TERM = SignalReceived(int(signal.SIGUSR1), 100.0), SignalReceived(int(signal.SIGTERM), 130.0)
BUG = Raised("ValueError", "bad loss", 2, 17)
ECHO = Raised("RuntimeError", "[gloo/transport] Connection closed by peer")
FULL, MEMORY = Raised("NoSpaceError", "the filesystem is full"), Raised("MemoryError", "")
AGAIN, GUARD = Traces(restarted=True), Traces(began=True, supervised=True)
SUPERVISED = replace(AGAIN, began=True, supervised=True)


def word(state: str, traces: Traces = GUARD) -> Traces:
    return replace(traces, state=state, said=f"job 7 ended as {state} (Reason=x)")


@pytest.mark.parametrize(
    ("traces", "cause", "words"),
    [
        # A guard, a resubmitted job, or one that a person submits: Slurm's last word on the job before.
        (word("NODE_FAIL"), Cause.NODE_FAILURE, "Slurm: job 7 ended as NODE_FAIL"),
        (word("BOOT_FAIL"), Cause.NODE_FAILURE, "BOOT_FAIL"),
        (word("PREEMPTED"), Cause.PREEMPTED, "PREEMPTED"),
        (word("TIMEOUT"), Cause.WALLTIME, "TIMEOUT"),
        (word("DEADLINE"), Cause.WALLTIME, "DEADLINE"),
        (word("OUT_OF_MEMORY"), Cause.OUT_OF_MEMORY, "OUT_OF_MEMORY"),
        (word("CANCELLED"), Cause.OPERATOR, "CANCELLED"),
        (word("FAILED"), Cause.UNKNOWN, "the supervisor vanished"),
        (GUARD, Cause.UNKNOWN, "the supervisor vanished"),
        (replace(word("FAILED"), down=("n2",)), Cause.NODE_FAILURE, "down: n2"),
        # The same job again.
        (SUPERVISED, Cause.NODE_FAILURE, "its node was lost"),
        (replace(SUPERVISED, began=False), Cause.NODE_FAILURE, "before its first record"),
        (replace(SUPERVISED, down=("n2",)), Cause.NODE_FAILURE, "down: n2"),
        (word("PREEMPTED", SUPERVISED), Cause.PREEMPTED, "PREEMPTED"),
        (word("NODE_FAIL", AGAIN), Cause.NODE_FAILURE, "NODE_FAIL"),
        (word("REQUEUED", AGAIN), Cause.OPERATOR, "as scontrol requeue does"),
        # Ranks without a supervisor, of submitit's: silence alone says nothing.
        (AGAIN, Cause.UNKNOWN, "Slurm has started the job again"),
        (replace(AGAIN, anew=("n1",)), Cause.NODE_FAILURE, "slurmd on n1 has begun anew"),
        (replace(AGAIN, down=("n1",)), Cause.NODE_FAILURE, "down: n1"),
        (replace(AGAIN, heard=(TERM,)), Cause.OPERATOR, "without any warning, as scontrol requeue does"),
        (replace(AGAIN, heard=(USR1, TERM)), Cause.PREEMPTED, "warned, then ended by Slurm"),
        (replace(AGAIN, heard=(TERM,), anew=("n1",)), Cause.OPERATOR, "scontrol requeue"),
        (replace(AGAIN, heard=(USR1,)), Cause.UNKNOWN, "no supervisor"),
        (Traces(heard=(TERM,)), Cause.UNKNOWN, "no supervisor"),
        (Traces(), Cause.UNKNOWN, "no supervisor kept a record"),
        # What the session or a rank could say itself counts more than a node that is down as well.
        (replace(SUPERVISED, decided=Cause.STORAGE, down=("n2",)), Cause.STORAGE, "the session decided so"),
        (replace(SUPERVISED, raised=BUG, down=("n2",)), Cause.CRASH, "ValueError on rank 2 at step 17: bad loss"),
        (replace(word("NODE_FAIL"), raised=BUG), Cause.CRASH, "ValueError"),
        (replace(AGAIN, raised=MEMORY), Cause.OUT_OF_MEMORY, "MemoryError"),
        (replace(AGAIN, raised=FULL), Cause.STORAGE, "NoSpaceError"),
        # But not the echo of a peer's end.
        (replace(SUPERVISED, raised=ECHO), Cause.NODE_FAILURE, "its node was lost"),
        (replace(word("NODE_FAIL"), raised=ECHO), Cause.NODE_FAILURE, "NODE_FAIL"),
        (replace(AGAIN, raised=ECHO, anew=("n1",)), Cause.NODE_FAILURE, "begun anew"),
        (replace(AGAIN, raised=ECHO), Cause.CRASH, "Connection closed by peer"),
    ],
)  # fmt: skip
def test_the_cause_follows_from_what_is_left(traces, cause, words):
    ending = infer(traces)
    assert ending.cause is cause
    assert words in ending.evidence[0]


def test_an_unknown_cause_says_what_was_looked_at():
    looked = ("there is no accounting that remembers that start of the job", "none of its nodes (n[1-2]) is down")
    assert infer(replace(AGAIN, looked=looked)).evidence[1:] == looked


@pytest.mark.parametrize(
    ("traces", "lost"),
    [
        (replace(AGAIN, down=("n2",), anew=("n1",)), ("n1", "n2")),
        (replace(AGAIN, heard=(TERM,), down=("n2",), anew=("n1",)), ("n2",)),
        (AGAIN, ()),
    ],
)
def test_nodes_that_began_anew_are_lost_only_where_no_end_was_heard(traces, lost):
    assert traces.lost == lost
