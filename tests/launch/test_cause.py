from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.model import Cause, Decision
from hpcresume.policy.cause import ChildExit, Ending, Evidence, Raised, SessionDecision, SignalReceived, name_cause
from hpcresume.policy.job_facts import JobFacts

NOW = 1_700_000_000.0
USR1 = SignalReceived(int(signal.SIGUSR1), NOW)
TERM = SignalReceived(int(signal.SIGTERM), NOW + 1)
EARLY_TERM = SignalReceived(int(signal.SIGTERM), NOW - 0.01)
TERM_OF_RANKS = SignalReceived(int(signal.SIGTERM), NOW + 0.95)
BACK = SessionDecision(Decision.COME_BACK, "warned", 40, "g000000000040-a0001")
STORAGE = SessionDecision(Decision.HOLD, "10 saves failed", 40, cause_hint=Cause.STORAGE)
DONE = SessionDecision(Decision.DONE, "all steps done", 100)
CLEAN, KILLED, FAILED, CAME_BACK = ChildExit(0), ChildExit(137), ChildExit(1), ChildExit(75)
RUNNING = JobFacts("RUNNING", start=NOW - 600, end=NOW + 86400)
PREEMPTED = JobFacts("RUNNING", start=NOW - 600, end=NOW + 60, preempted_at=NOW - 1)
NEAR_LIMIT = JobFacts("RUNNING", start=NOW - 600, end=NOW + 60)
FAR_LIMIT_OF_A_DAY = JobFacts("RUNNING", start=NOW - 72000, end=NOW + 14400)
NODE_FAIL = JobFacts("NODE_FAIL", "NodeDown")
CANCELLED = JobFacts("CANCELLED", end=NOW)
TIMEOUT = JobFacts("TIMEOUT", "TimeLimit")
# The next five as a real 22.05 showed them while the job was being ended.
ENDED_AT_LIMIT = JobFacts("COMPLETING", "TimeLimit", start=NOW - 88, end=NOW)
ENDED_BY_SCANCEL = JobFacts("COMPLETING", "None", start=NOW - 2, end=NOW)
ENDED_BY_REQUEUE = JobFacts("COMPLETING", "None", restarts=1, start=NOW)
ENDED_BY_PREEMPTION = JobFacts("COMPLETING", "None", restarts=1, start=NOW)
NODE_SILENT = JobFacts("RUNNING", start=NOW - 600, end=NOW + 86400, down_nodes=("n2",))
ENDED_BY_NODE = JobFacts("COMPLETING", "None", restarts=1, start=NOW, down_nodes=("n2",))
# As 22.05 showed them after a script without a trap had died of the warning.
SCRIPT_DIED = JobFacts("COMPLETING", "JobLaunchFailure", start=NOW - 60, end=NOW, killed_by=10)
SCRIPT_DIED_PREEMPTED = replace(SCRIPT_DIED, preempted_at=NOW)
# Of a script that says when and whom to warn.
ASKED_60 = replace(NEAR_LIMIT, end=NOW + 600, warning_lead=60.0)
ASKED_600 = replace(NEAR_LIMIT, end=NOW + 600, warning_lead=600.0)
ASKED_BATCH = replace(NEAR_LIMIT, warning_lead=60.0, warns_batch=True)
UNANSWERED = JobFacts("RUNNING", start=NOW - 600, end=NOW + 86400, silent_nodes=("n2",))
OOM = JobFacts("OUT_OF_MEMORY", "OutOfMemory")
LEAVING = JobFacts("COMPLETING", end=NOW)
BUG = Raised("ValueError", "bad loss", 2, 17)
FULL = Raised("NoSpaceError", "the filesystem is full", 0, 17)
MEMORY = Raised("MemoryError", "", 2, 17)
ECHO = Raised("RuntimeError", "[gloo/transport/tcp/pair.cc:534] Connection closed by peer", 0, 17)
AT_ONCE = SignalReceived(int(signal.SIGUSR1), TERM.at + 0.004)
BUG_ON_N1 = replace(BUG, host="n1.cluster", at=NOW)
BUG_ON_N2 = replace(BUG, host="n2.cluster", at=NOW)
SEEN_BEFORE, SEEN_LATER = replace(NODE_SILENT, asked_at=NOW - 5), replace(NODE_SILENT, asked_at=NOW + 5)


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (Evidence(claimed=True, decision=DONE, child=CLEAN), Cause.DONE),
        (Evidence(claimed=True, decision=DONE, child=KILLED, signals=(USR1,), job=(PREEMPTED,)), Cause.DONE),
        (Evidence(child=CLEAN), Cause.DONE),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(PREEMPTED,)), Cause.PREEMPTED),
        (Evidence(child=CAME_BACK, signals=(USR1,), job=(PREEMPTED,)), Cause.PREEMPTED),
        (Evidence(claimed=True, child=KILLED, signals=(USR1,), job=(PREEMPTED,)), Cause.PREEMPTED),
        (Evidence(claimed=True, signals=(USR1, TERM), job=(ENDED_BY_PREEMPTION, PREEMPTED)), Cause.PREEMPTED),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(NEAR_LIMIT,)), Cause.WALLTIME),
        (
            Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(FAR_LIMIT_OF_A_DAY,)),
            Cause.WALLTIME,
        ),
        (Evidence(claimed=True, signals=(TERM,), job=(TIMEOUT,)), Cause.WALLTIME),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(RUNNING,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,)), Cause.PREEMPTED),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, rank_warnings=(USR1,), job=(PREEMPTED,)), Cause.PREEMPTED),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, rank_warnings=(TERM,), job=(PREEMPTED,)), Cause.PREEMPTED),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, rank_warnings=(USR1,), job=(NEAR_LIMIT,)), Cause.WALLTIME),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, rank_warnings=(USR1,), job=(RUNNING,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, rank_warnings=(USR1,)), Cause.PREEMPTED),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, job=(RUNNING,)), Cause.UNKNOWN),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(TERM,), job=(LEAVING,)), Cause.OPERATOR),
        (Evidence(claimed=True, child=KILLED, signals=(TERM,), job=(CANCELLED,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, interrupted=True), Cause.OPERATOR),
        (Evidence(claimed=True, child=KILLED, job=(NODE_FAIL,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=KILLED, signals=(TERM,), job=(ENDED_BY_NODE,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=KILLED, signals=(TERM,), job=(ENDED_AT_LIMIT,)), Cause.WALLTIME),
        (Evidence(claimed=True, signals=(TERM,), job=(ENDED_BY_SCANCEL,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(TERM,), job=(ENDED_BY_SCANCEL,)), Cause.OPERATOR),
        (Evidence(claimed=True, signals=(USR1, TERM), job=(ENDED_BY_SCANCEL, PREEMPTED)), Cause.OPERATOR),
        (Evidence(claimed=True, child=KILLED, job=(NODE_SILENT,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(NODE_SILENT,)), Cause.OPERATOR),
        (Evidence(claimed=True, signals=(TERM,), job=(ENDED_BY_REQUEUE,)), Cause.OPERATOR),
        (Evidence(claimed=True, rank_warnings=(USR1,), signals=(TERM,), job=(ENDED_BY_PREEMPTION,)), Cause.PREEMPTED),
        (Evidence(claimed=True, signals=(USR1, TERM), job=(ENDED_BY_PREEMPTION,)), Cause.PREEMPTED),
        (Evidence(claimed=True, child=KILLED, child_at=NOW, job=(LEAVING,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=KILLED, job=(OOM,)), Cause.OUT_OF_MEMORY),
        (Evidence(claimed=True, child=KILLED, out_of_memory=("the kernel killed 1",)), Cause.OUT_OF_MEMORY),
        (Evidence(claimed=True, child=KILLED), Cause.CRASH),
        (Evidence(claimed=True, child=KILLED, job=(RUNNING,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=BUG), Cause.CRASH),
        (Evidence(child=FAILED), Cause.CRASH),
        (Evidence(claimed=True, decision=STORAGE, child=CLEAN), Cause.STORAGE),
        (Evidence(claimed=True, child=FAILED, raised=FULL), Cause.STORAGE),
        (Evidence(claimed=True, child=ChildExit(71), stuck="rank 2 hangs in a save", job=(RUNNING,)), Cause.STORAGE),
        (Evidence(claimed=True, child=ChildExit(71), stuck="rank 2 hangs", job=(NODE_SILENT,)), Cause.NODE_FAILURE),
        (
            Evidence(claimed=True, child=ChildExit(71), stuck="rank 2 hangs", job=(PREEMPTED,), signals=(USR1,)),
            Cause.PREEMPTED,
        ),
        (Evidence(claimed=True, child=ChildExit(71), job=(RUNNING,)), Cause.CRASH),
        (Evidence(claimed=True, decision=BACK, signals=(TERM,), job=(SCRIPT_DIED,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, signals=(TERM,), job=(SCRIPT_DIED_PREEMPTED,)), Cause.PREEMPTED),
        (
            Evidence(claimed=True, rank_warnings=(TERM_OF_RANKS,), signals=(TERM,), job=(ENDED_BY_REQUEUE,)),
            Cause.OPERATOR,
        ),
        (
            Evidence(claimed=True, rank_warnings=(EARLY_TERM,), signals=(USR1, TERM), job=(ENDED_BY_PREEMPTION,)),
            Cause.PREEMPTED,
        ),
        (Evidence(claimed=True, child=CLEAN, kind="srun"), Cause.CRASH),
        (Evidence(claimed=True, child=CLEAN, kind="mpiexec"), Cause.UNKNOWN),
        (Evidence(claimed=True, child=CLEAN, kind="mpiexec", job=(UNANSWERED,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=CLEAN, child_at=NOW, signals=(TERM,), job=(ENDED_BY_SCANCEL,)), Cause.OPERATOR),
        (Evidence(claimed=True, child=CLEAN, child_at=NOW, signals=(TERM,), job=(ENDED_BY_REQUEUE,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(ASKED_60,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(ASKED_600,)), Cause.WALLTIME),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, rank_warnings=(USR1,), job=(ASKED_BATCH,)), Cause.OPERATOR),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(ASKED_BATCH,)), Cause.WALLTIME),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, clock=USR1, job=(ASKED_60,)), Cause.WALLTIME),
        (Evidence(claimed=True, child=FAILED, job=(UNANSWERED,)), Cause.NODE_FAILURE),
        # GraceTime=0 on 24.11: the warning is taken a moment after the end, and none of ours goes to the supervisor.
        (Evidence(claimed=True, signals=(TERM, AT_ONCE), job=(ENDED_BY_PREEMPTION,)), Cause.PREEMPTED),
        (Evidence(claimed=True, signals=(TERM,), rank_warnings=(AT_ONCE,), job=(ENDED_BY_REQUEUE,)), Cause.OPERATOR),
        (Evidence(claimed=True, signals=(TERM, AT_ONCE), job=(ENDED_BY_SCANCEL,)), Cause.OPERATOR),
        # A program's own exception is a crash, whatever else is wrong; the echo of a lost peer is not.
        (Evidence(claimed=True, child=FAILED, raised=BUG, job=(UNANSWERED,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=BUG, job=(NODE_SILENT,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=BUG, job=(NODE_FAIL,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=BUG, job=(ENDED_BY_NODE,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=BUG, job=(CANCELLED,)), Cause.OPERATOR),
        (Evidence(claimed=True, child=FAILED, raised=MEMORY, job=(NODE_SILENT,)), Cause.OUT_OF_MEMORY),
        (Evidence(claimed=True, child=FAILED, raised=ECHO, job=(UNANSWERED,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=FAILED, raised=ECHO, job=(NODE_SILENT,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=FAILED, raised=ECHO, job=(NODE_FAIL,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=FAILED, raised=ECHO, job=(RUNNING,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=FULL, job=(NODE_SILENT,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=FAILED, raised=BUG_ON_N2, job=(NODE_SILENT,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=FAILED, raised=BUG_ON_N1, job=(NODE_SILENT,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=BUG_ON_N1, job=(SEEN_LATER,)), Cause.CRASH),
        (Evidence(claimed=True, child=FAILED, raised=BUG_ON_N1, job=(SEEN_BEFORE,)), Cause.NODE_FAILURE),
        (Evidence(claimed=True, child=FAILED, raised=BUG_ON_N1, job=(SEEN_LATER, SEEN_BEFORE)), Cause.NODE_FAILURE),
        # A helper process that the kernel killed for memory does not make a saved preemption want of memory.
        (
            Evidence(
                claimed=True,
                decision=BACK,
                child=CLEAN,
                signals=(USR1,),
                job=(PREEMPTED,),
                out_of_memory=("the kernel killed 1",),
            ),
            Cause.PREEMPTED,
        ),
        (Evidence(claimed=True, decision=BACK, child=CLEAN, signals=(USR1,), job=(UNANSWERED,)), Cause.OPERATOR),
        (Evidence(claimed=True, child=CLEAN, job=(PREEMPTED,)), Cause.PREEMPTED),
        (Evidence(claimed=True, child=FAILED, raised=BUG, job=(PREEMPTED,)), Cause.CRASH),
        (Evidence(), Cause.UNKNOWN),
    ],
)
def test_the_cause_follows_the_evidence(evidence, cause):
    ending = name_cause(evidence)
    assert ending.cause is cause
    assert ending.evidence
    assert all(line.strip() for line in ending.evidence)


def test_the_evidence_of_a_crash_names_error_rank_and_step():
    assert name_cause(Evidence(claimed=True, child=FAILED, raised=BUG)).evidence[0] == (
        "ValueError on rank 2 at step 17: bad loss"
    )


@pytest.mark.parametrize(
    ("child", "killer", "status", "text"),
    [
        (ChildExit(137), signal.SIGKILL, 137, "exit code 137 (SIGKILL)"),
        (ChildExit(signal=11), signal.SIGSEGV, 139, "exit code 139 (SIGSEGV)"),
        (ChildExit(1), None, 1, "exit code 1"),
        (ChildExit(255), None, 255, "exit code 255"),
        (ChildExit(0), None, 0, "exit code 0"),
    ],
)
def test_how_the_launcher_ended_is_read_as_a_shell_shows_it(child, killer, status, text):
    assert (child.killed_by, child.status, str(child)) == (killer, status, text)


facts = st.builds(
    JobFacts,
    state=st.sampled_from("RUNNING COMPLETING PENDING PREEMPTED NODE_FAIL CANCELLED TIMEOUT NEWSTATE".split()),
    reason=st.sampled_from(["None", "NodeDown", ""]),
    start=st.none() | st.floats(0, 2e9),
    end=st.none() | st.floats(0, 4e9),
    preempted_at=st.none() | st.floats(0, 2e9),
)
evidences = st.builds(
    Evidence,
    claimed=st.booleans(),
    decision=st.none()
    | st.builds(SessionDecision, st.sampled_from(Decision), cause_hint=st.none() | st.sampled_from(Cause)),
    child=st.none() | st.builds(ChildExit, st.integers(0, 255)) | st.builds(ChildExit, st.none(), st.integers(1, 64)),
    child_at=st.none() | st.floats(0, 2e9),
    signals=st.lists(
        st.builds(SignalReceived, st.sampled_from([1, 10, 12, 15, 63]), st.floats(0, 2e9)), max_size=4
    ).map(tuple),
    job=st.lists(facts, max_size=2).map(tuple),
    rank_warnings=st.lists(st.builds(SignalReceived, st.sampled_from([1, 10, 15]), st.floats(0, 2e9)), max_size=2).map(
        tuple
    ),
    raised=st.none() | st.builds(Raised, st.sampled_from(["ValueError", "SaveError"])),
    interrupted=st.booleans(),
)


@given(evidences)
def test_every_evidence_has_a_cause_and_a_reason(evidence):
    ending = name_cause(evidence)
    assert isinstance(ending, Ending)
    assert ending.evidence


@given(evidences)
def test_a_finished_run_is_done_whatever_else_happened(evidence):
    done = Evidence(**{**vars(evidence), "decision": DONE})
    assert name_cause(done).cause is Cause.DONE


@given(evidences)
def test_no_attempt_counts_as_done_unless_the_ranks_said_so(evidence):
    if name_cause(evidence).cause is Cause.DONE:
        said = evidence.decision is not None and (
            evidence.decision.decision is Decision.DONE or evidence.decision.cause_hint is Cause.DONE
        )
        assert said or (evidence.child is not None and evidence.child.clean and not evidence.claimed)


@pytest.mark.parametrize(
    ("facts", "chosen"),
    [
        (JobFacts("RUNNING", start=100.0, preempted_at=160.0), True),
        (JobFacts("RUNNING", start=100.0, preempted_at=60.0), False),
        (JobFacts("RUNNING", preempted_at=60.0), True),
        (JobFacts("COMPLETING", start=100.0, preempted_at=100.0), True),
        (JobFacts("PENDING", start=900.0, preempted_at=160.0), True),
        (JobFacts("RUNNING", start=100.0), False),
    ],
)
def test_the_preemption_of_an_earlier_start_is_not_this_ones(facts, chosen):
    assert facts.being_preempted is chosen
    warned = Evidence(claimed=True, child=ChildExit(code=75), signals=(SignalReceived(10, 165.0),), job=(facts,))
    assert (name_cause(warned).cause is Cause.PREEMPTED) is chosen
