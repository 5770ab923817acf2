"""How an attempt is closed whose own supervisor could not: what Slurm says of its job, against a fake one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcresume.io.paths import RunPaths
from hpcresume.launch.closing import close_before_start, closed_by, look_back, lost_nodes
from hpcresume.launch.hands import Hands
from hpcresume.launch.memory import told_of_memory
from hpcresume.launch.notes import read_notes
from hpcresume.launch.records import past_attempts
from hpcresume.model import Cause
from hpcresume.slurm.commands import Answer
from hpcresume.slurm.environment import SlurmEnvironment
from tests.launch.test_comeback import Bench, lose

BEGAN = 1_763_700_000.0
BEFORE, LATER = "2025-01-01T00:00:00", "2027-01-01T00:00:00"


class Cluster:
    """Answers Slurm's commands from a table; what stands in none of it is refused."""

    def __init__(self, **answers: str | list[str]) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def execute(self, words: Sequence[str], _timeout: float) -> Answer:
        key = "_".join(word for word in words[:4] if word in ("scontrol", "show", "job", "node", "sacct", "sinfo"))
        self.calls.append(key)
        answer = self.answers.get(key)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return Answer(1, "", "Invalid job id specified") if answer is None else Answer(0, answer, "")

    def hands(self) -> Hands:
        return Hands(self.execute, lambda: BEGAN, lambda _: None, {})


def record(state: str, restarts: int = 0, reason: str = "None", code: str = "0:0") -> str:
    return (f"JobId=7 JobName=a UserId=u(1) GroupId=g(1) JobState={state} Reason={reason} Requeue=0 "
            f"Restarts={restarts} ExitCode={code} Command=x\n")  # fmt: skip


def nodes(**starts: str) -> str:
    return "".join(f"NodeName={name} NodeAddr={name} SlurmdStartTime={at} State=IDLE\n" for name, at in starts.items())


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """Attempt 1 of job 7 has begun on two nodes and said no more."""
    attempt = RunPaths(tmp_path).attempt(1)
    attempt.root.mkdir(parents=True)
    attempt.claim.write_text(json.dumps({"job_id": "7", "restart": 0}))
    os.utime(attempt.claim, (BEGAN, BEGAN))
    write(attempt.supervisor, {"event": "started", "node": "n1", "nodes": "n[1-2]"})
    return RunPaths(tmp_path)


def write(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps({"t": BEGAN, "mono": 0.0, **line}) + "\n" for line in lines))
    os.utime(path, (BEGAN, BEGAN))


def job(number: str = "8", restarts: int = 0) -> SlurmEnvironment:
    return SlurmEnvironment(job_id=number, restart_count=restarts)


def evidence(run: RunPaths) -> list[str]:
    lines = map(json.loads, run.attempt(1).supervisor.read_text().splitlines())
    return next(line["evidence"] for line in lines if line["event"] == "cause")


@pytest.mark.parametrize(
    ("state", "reason", "cause"),
    [
        ("NODE_FAIL", "NodeDown", Cause.NODE_FAILURE),
        ("PREEMPTED", "None", Cause.PREEMPTED),
        ("TIMEOUT", "TimeLimit", Cause.WALLTIME),
        ("OUT_OF_MEMORY", "OutOfMemory", Cause.OUT_OF_MEMORY),
        ("CANCELLED", "None", Cause.OPERATOR),
    ],
)
def test_a_job_that_stands_behind_another_tells_how_that_one_ended_by_slurms_word(run, state, reason, cause):
    slurm = Cluster(scontrol_show_job=record(state, reason=reason), sinfo="n1 down*\nn2 idle\n")
    close_before_start(run, job(), slurm.hands())
    assert [each.cause for each in past_attempts(run)] == [cause]
    assert evidence(run)[0] == f"Slurm: job 7 ended as {state} (Reason={reason}, exit code 0)"
    told = closed_by(run, 2)
    assert told is not None
    assert told.cause is cause
    assert lost_nodes(run, 2) == ([("n1", BEGAN)] if cause is Cause.NODE_FAILURE else [])
    before = run.attempt(1).supervisor.read_bytes()
    close_before_start(run, job(), slurm.hands())
    assert run.attempt(1).supervisor.read_bytes() == before, "once"


def test_it_waits_for_a_job_that_is_about_to_be_over_and_says_nothing_of_one_that_is_at_work(run):
    slurm = Cluster(scontrol_show_job=[record("COMPLETING"), record("COMPLETING"), record("NODE_FAIL")])
    close_before_start(run, job(), slurm.hands())
    assert past_attempts(run)[0].cause is Cause.NODE_FAILURE
    assert slurm.calls.count("scontrol_show_job") == 3


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SUSPENDED"])
def test_nothing_is_said_of_an_attempt_whose_job_may_be_at_work(run, state):
    close_before_start(run, job(), Cluster(scontrol_show_job=record(state)).hands())
    assert closed_by(run, 2) is None


class Away(Cluster):
    """A cluster whose controller does not answer the first so many times; time passes while it is asked."""

    def __init__(self, times: int, words: str, **answers: str | list[str]) -> None:
        super().__init__(**answers)
        self.times, self.words, self.now = times, words, BEGAN

    def execute(self, words: Sequence[str], timeout: float) -> Answer:
        self.times -= 1
        return Answer(1, "", self.words) if self.times >= 0 else super().execute(words, timeout)

    def hands(self) -> Hands:
        def sleep(seconds: float) -> None:
            self.now += seconds

        return Hands(self.execute, lambda: self.now, sleep, {})


AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


@pytest.mark.parametrize("words", [AWAY, "slurm_load_jobs error: Access/permission denied"])
def test_a_controller_that_does_not_tell_leaves_the_attempt_open_for_its_job_may_be_at_work(run, words):
    before = run.attempt(1).supervisor.read_bytes()
    slurm = Away(10**6, words)
    close_before_start(run, job(), slurm.hands())
    assert run.attempt(1).supervisor.read_bytes() == before
    assert slurm.now - BEGAN <= 360, "a start waits some minutes at the most"
    assert (slurm.now - BEGAN >= 200) == (words == AWAY), "asking again helps where it does not answer, else not"
    close_before_start(run, job(), Cluster(scontrol_show_job=record("NODE_FAIL")).hands())
    assert past_attempts(run)[0].cause is Cause.NODE_FAILURE, "the true cause, once it is known"


def test_a_controller_that_was_away_for_a_moment_is_asked_again(run):
    close_before_start(run, job(), Away(7, AWAY, scontrol_show_job=record("PREEMPTED")).hands())
    assert past_attempts(run)[0].cause is Cause.PREEMPTED


def test_who_only_reads_waits_for_no_controller_and_is_told_what_the_files_tell(run):
    slurm = Away(10**6, AWAY)
    ending = look_back(run, slurm.hands())
    assert ending is not None
    assert "or does not answer" in "; ".join(ending.evidence)
    assert slurm.now - BEGAN < 60


def test_slurmds_that_were_all_restarted_while_the_job_waited_are_no_lost_nodes(run):
    """But a supervisor that vanished took its own node along, or the other way round."""
    slurm = Cluster(scontrol_show_node=nodes(n1=LATER, n2=LATER))
    close_before_start(run, job("7", 1), slurm.hands())
    assert past_attempts(run)[0].cause is Cause.NODE_FAILURE
    assert lost_nodes(run, 2) == [("n1", BEGAN)]


def test_a_job_whose_script_was_lost_after_a_restart_says_nothing_of_the_start_before(run):
    """FAILED is of the second start, which claimed nothing; that there was one tells how the first one ended."""
    close_before_start(run, job(), Cluster(scontrol_show_job=record("FAILED", restarts=1)).hands())
    assert past_attempts(run)[0].cause is Cause.NODE_FAILURE
    assert lost_nodes(run, 2) == [("n1", BEGAN)], "the supervisor's, since none is known to be down"


def test_of_a_job_that_slurm_has_forgotten_accounting_tells(run):
    rows = ["RUNNING\x1f2026-01-01T00:00:00\x1fUnknown", "NODE_FAIL\x1f2025-01-01T00:00:00\x1f2025-11-21T00:00:00"]
    close_before_start(run, job(), Cluster(sacct="\n".join(rows)).hands())
    assert evidence(run)[0] == "Slurm: job 7 ended as NODE_FAIL (sacct)"


def test_where_nobody_knows_it_says_what_was_looked_at(run):
    close_before_start(run, job(), Cluster(sinfo="n1 idle\nn2 idle\n").hands())
    assert past_attempts(run)[0].cause is Cause.UNKNOWN
    said = "; ".join(evidence(run))
    for words in ("supervisor vanished", "forgotten job 7", "no accounting", "none of its nodes (n[1-2]) is down"):
        assert words in said
    assert lost_nodes(run, 2) == []


def test_who_asks_why_afterwards_is_told_what_slurm_knows_and_nothing_is_written(run):
    slurm = Cluster(scontrol_show_job=record("NODE_FAIL", reason="NodeDown"), sinfo="n1 down*\n")
    before = run.attempt(1).supervisor.read_bytes()
    ending = look_back(run, slurm.hands())
    assert ending is not None
    assert ending.cause is Cause.NODE_FAILURE
    assert run.attempt(1).supervisor.read_bytes() == before
    assert look_back(run, Cluster(scontrol_show_job=record("RUNNING")).hands()) is None
    assert look_back(RunPaths(run.root / "empty"), slurm.hands()) is None


def unsupervised(run: RunPaths, *lines: dict[str, Any]) -> None:
    """As ranks without a supervisor leave it."""
    run.attempt(1).supervisor.unlink()
    write(run.attempt(1).ledger, {"event": "claimed", "nodes": "n[1-2]"}, *lines)


@pytest.mark.parametrize(
    ("lines", "answers", "cause", "lost"),
    [
        ([], {"scontrol_show_node": nodes(n1=LATER, n2=BEFORE)}, Cause.NODE_FAILURE, ["n1"]),
        ([], {"scontrol_show_node": nodes(n1=BEFORE, n2=BEFORE)}, Cause.UNKNOWN, []),
        ([], {"scontrol_show_node": nodes(n1=LATER, n2=LATER)}, Cause.UNKNOWN, []),  # an upgrade of Slurm
        ([], {"scontrol_show_node": nodes(n1=LATER, n2=LATER, n3=BEFORE)}, Cause.UNKNOWN, []),
        ([], {"scontrol_show_node": nodes(n1=LATER)}, Cause.NODE_FAILURE, ["n1"]),
        ([], {"sinfo": "n1 idle\nn2 down*\n"}, Cause.NODE_FAILURE, ["n2"]),
        ([], {"sacct": "REQUEUED\x1f2025-01-01T00:00:00\x1f2025-11-21T12:00:00"}, Cause.OPERATOR, []),
        ([], {"sacct": "PREEMPTED\x1f2025-01-01T00:00:00\x1f2025-11-21T12:00:00"}, Cause.PREEMPTED, []),
        ([], {}, Cause.UNKNOWN, []),
        ([{"event": "warning", "signal": "SIGTERM"}], {}, Cause.OPERATOR, []),
        ([{"event": "end-heard", "signal": "SIGTERM"}], {}, Cause.OPERATOR, []),
        ([{"event": "end-heard"}], {}, Cause.UNKNOWN, []),
        ([{"event": "exception", "type": "ValueError", "message": "bug"}], {"sinfo": "n2 down*\n"}, Cause.CRASH, []),
    ],
)  # fmt: skip
def test_ranks_without_a_supervisor_are_told_of_by_the_next_start_of_their_job(run, lines, answers, cause, lost):
    unsupervised(run, *lines)
    close_before_start(run, job("7", 1), Cluster(**answers).hands(), supervised=False)
    assert past_attempts(run)[0].cause is cause, evidence(run)
    assert [node for node, _ in lost_nodes(run, 2)] == lost


@pytest.mark.parametrize("claim", [{"job_id": "7", "restart": 0, "holds": False}, {"job_id": None, "restart": 0}, {}])
def test_what_belongs_to_no_job_or_to_no_session_is_left_alone(run, claim):
    run.attempt(1).claim.write_text(json.dumps(claim))
    slurm = Cluster()
    close_before_start(run, job("7", 1), slurm.hands())
    assert closed_by(run, 2) is None
    assert slurm.calls == []


def test_this_very_start_is_not_closed(run):
    close_before_start(run, job("7", 0), Cluster().hands())
    assert closed_by(run, 2) is None


# ---- want of memory on another node

WORDS = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (WORDS, True),
        ("slurmstepd: error: n2: Detected 2 oom_kill events in StepId=7.batch. Some of the step tasks…", True),
        ("slurmstepd-n2: error: Detected 1 oom-kill event(s) in StepId=7.0. Some of your processes…", True),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in step 7.0 cgroup. Some of your processes…", True),
        ("srun: error: n2: task 1: Out Of Memory", True),
        ("srun: error: n[2-3]: tasks 1-2: Out Of Memory", True),
        (WORDS.replace("StepId=7.", "StepId=8."), False),  # another task of the array, in the same log
        ("srun: error: n2: task 1: Killed", False),
        ("the model ran Out Of Memory", False),
        (f"I read that '{WORDS}'", False),
        ("", False),
    ],
)
def test_slurms_words_of_a_kill_for_memory_are_found_in_the_jobs_log(tmp_path, monkeypatch, text, found):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    log = tmp_path / "job.log"
    before = f"{WORDS}\nof an earlier start\n"
    log.write_text(f"{before}epoch 1\n{text}\nthe end\n")
    logs = [{"path": str(log), "offset": len(before)}]
    told = told_of_memory(job("7"), logs, execute=Cluster().execute)
    assert len(told) == found
    assert all(line.removeprefix("Slurm, in the job's log: ") in text for line in told)


def test_without_such_words_accounting_is_asked(tmp_path):
    slurm = Cluster(sacct="7\x1fFAILED\x1f137:0\n7.0\x1fOUT_OF_MEMORY\x1f0:125\n")
    assert "step 7.0 ended as OUT_OF_MEMORY" in told_of_memory(job("7"), [], execute=slurm.execute)[0]
    gone = [{"path": str(tmp_path / "missing"), "offset": 5}]
    assert told_of_memory(job("7"), gone, execute=Cluster().execute) == ()
    assert told_of_memory(SlurmEnvironment(), [], execute=slurm.execute) == ()


# ---- the node of an attempt that was lost, in the job that goes on instead


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bench(tmp_path, requeue=False)


def test_a_job_that_goes_on_instead_is_kept_off_the_lost_node_beside_what_its_user_excludes(bench):
    bench.slurm.job_requeue = False
    bench.job.excluded = ("n6",)
    carried = bench.ends(Cause.NODE_FAILURE, evidence=lose(bench, "n2"))
    assert carried.resubmitted is not None
    successor = bench.slurm.jobs[carried.resubmitted]
    assert set(successor.excluded) == {"n2", "n6"}
    notes = read_notes(bench.root)
    assert (notes.job_id, notes.excluded) == (successor.id, ("n2",)), "its own, to be taken back in time"


def test_a_guard_that_starts_suspects_the_node_that_took_its_job_along(bench):
    """Another job, which Slurm never restarted: only Slurm's word on the job before tells."""
    bench.run.attempt(1).claim.write_text(json.dumps({"job_id": bench.job.id, "restart": 0}))
    node = bench.job.nodes[0]
    write(bench.run.attempt(1).supervisor, {"event": "started", "node": node, "nodes": ",".join(bench.job.nodes)})
    bench.slurm.lose_node(node)
    bench.slurm.gone(bench.job)
    assert bench.job.state == "NODE_FAIL"
    guard = bench.slurm.submit("#!/bin/sh\n", nodes=2, options=(f"--export=ALL,HPCRESUME_BEHIND=guard:{bench.job.id}",))
    bench.slurm.advance(60)
    assert bench.slurm.start_due() == [guard]
    assert bench.admitted(guard).refused is None
    assert past_attempts(bench.run)[0].cause is Cause.NODE_FAILURE
    assert [each.node for each in read_notes(bench.root).suspects] == [node]
