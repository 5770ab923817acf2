"""Situation → what a run is said to do, and what comes next: one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcresume.checkpoint.attempts import Holder
from hpcresume.model import Cause
from hpcresume.observe.figures import span
from hpcresume.observe.glance import Glance, Newest
from hpcresume.ops.run_state import STATES, Known, judge
from hpcresume.slurm.queue import QueuedJob

NOW = 1_000_000.0


def seen(**changes) -> Glance:
    return Glance(**{"root": Path("run"), "attempts": 1, "newest": newest(), **changes})


def newest(**changes) -> Newest:
    holder = Holder("12", 0, "n1", "b", 1, "1")
    return Newest(**{"attempt": 3, "holder": holder, "claimed_at": NOW - 100, "last_sign": NOW - 5, **changes})


def known(**changes) -> Known:
    return Known(**{"job_id": "12", "asked": True, "now": NOW, **changes})


def job(state: str, reason: str = "", **changes) -> QueuedJob:
    return QueuedJob(**{"id": "12", "state": state, "reason": reason, **changes})


HELD = newest(decided="hold", reason="held: 3 crashes", cause=Cause.CRASH, ended=True)
ENDED = newest(decided="come-back", cause=Cause.PREEMPTED, ended=True, requeue="accepted", evidence=("why",))
LOCAL = Holder(None, 0, "here", "b", 1, "1")
HERE = newest(holder=LOCAL)

TABLE = [
    # its files, beside them, state, said, next
    (seen(problem="no"), known(), "unreadable", "no", "look at the directory"),
    (seen(done=True, done_facts={"step": 9}), known(), "done", "finished at step 9", "nothing to do"),
    (seen(done=True), known(job=job("PENDING")), "done", "ends without doing anything", "nothing"),
    (seen(), known(job=job("RUNNING", nodes="n[1-2]", start=NOW - 110, end=NOW + 3700)), "running",
     "job 12 on n[1-2], 1 h 1 min left", "nothing to do"),
    (seen(newest=newest(lead=95.0)), known(job=job("RUNNING", nodes="n1", start=NOW - 110, end=NOW + 3700)), "running",
     "job 12 on n1, 1 h 1 min left, told to save 1 min 35 s before the end", "nothing to do"),
    (seen(), known(job=job("RUNNING", start=NOW - 10)), "running", "is starting for 10 s: no rank has begun", "noth"),
    (seen(newest=None), known(job=job("CONFIGURING")), "running", "no rank has begun", "nothing to do"),
    (seen(newest=newest(warned=True)), known(job=job("RUNNING")), "running", "warned, it saves and stops", "nothing"),
    (seen(), known(job=job("COMPLETING")), "running", "is ending", "in seconds"),
    (seen(), known(job=job("SUSPENDED")), "running", "is suspended by Slurm", "when Slurm lets it"),
    (seen(newest=None), known(job=job("PENDING", "Priority", start=NOW + 7500)), "pending",
     "waits behind jobs of higher priority (Priority), expected to start in 2 h 5 min, at ", "starts by itself"),
    (seen(newest=None), known(job=job("PENDING", "QOSMaxJobsPerUserLimit")), "pending", "limit of its acc", "start"),
    (seen(newest=None), known(job=job("PENDING", "SomethingNew")), "pending", "waits (SomethingNew)", "starts by"),
    (seen(newest=None), known(job=job("PENDING", "ReqNodeNotAvail, Reserved for maintenance")), "pending",
     "job 12 waits for the end of a maintenance, into which it would run", "starts by itself"),
    (seen(newest=None), known(job=job("PENDING", "DependencyNeverSatisfied")), "pending", "never starts", "scontrol"),
    (seen(newest=ENDED), known(job=job("PENDING", "BeginTime")), "requeued",
     "waits for the time from which it may start (BeginTime); attempt 3 ended: preempted", "starts by itself"),
    (seen(newest=HELD), known(job=job("PENDING", "job requeued in held state")), "held", "3 crashes",
     "hpcresume why RUN, then hpcresume requeue RUN"),
    (seen(newest=ENDED), known(job=job("PENDING", "JobHeldAdmin")), "held", "administrator", "hpcresume requeue RUN"),
    (seen(newest=None), known(job=job("REQUEUE_HOLD")), "held", "job 12", "hpcresume requeue RUN"),
    (seen(newest=HELD), known(), "held", "3 crashes", "why RUN, then hpcresume requeue RUN"),
    (seen(newest=HELD), known(asked=False), "held", "3 crashes", "why RUN"),
    (seen(newest=HELD), known(job=job("PENDING", "Priority"), submitted=True), "requeued", "priority", "by itself"),
    (seen(newest=ENDED), known(), "ended", "attempt 3: preempted (why)", "hpcresume requeue RUN"),
    (seen(newest=ENDED), known(job=job("CANCELLED")), "ended", "job 12 is CANCELLED", "hpcresume requeue RUN"),
    (seen(newest=newest(last_sign=NOW - 7200)), known(), "ended", "its last sign of life is 2 h old", "requeue"),
    (seen(newest=None), known(job=job("FAILED")), "ended", "job 12 is over (FAILED) and no attempt began", "logs RUN"),
    (seen(newest=newest(holder=Holder(None, 0, "x", "b", 1, "1", holds=False))), known(job_id=None, alive=True), "idle",
     "saved by hr.save", "nothing to do"),
    (seen(newest=None), known(job_id=None, asked=False), "new", "nothing was submitted", "hpcresume submit"),
    (seen(newest=None), known(asked=False), "unknown", "Slurm cannot be asked", "where Slurm is"),
    (seen(), known(asked=False), "running", "wrote something 5 s ago on n1", "nothing to do"),
    (seen(newest=newest(last_sign=NOW - 300)), known(asked=False), "unknown", "wrote nothing for 5 min", "where Slurm"),
    (seen(newest=HERE), known(job_id=None, asked=False, alive=True), "running", "on this machine", "nothing to do"),
    (seen(newest=HERE), known(job_id=None, asked=False, alive=False), "ended", "left no word", "by the same command"),
    (seen(newest=newest(holder=LOCAL, last_sign=NOW - 999)), known(job_id=None, asked=False), "ended", "no word", "sa"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "beside", "state", "doing", "following"), TABLE)
def test_a_situation_is_called_by_its_name(files, beside, state, doing, following):
    found = judge(files, beside)
    assert (found.state, doing in found.doing, following in found.next) == (state, True, True), found


def test_the_table_knows_every_state():
    assert {row[2] for row in TABLE} == set(STATES)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59.4, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (601, "10 min"), (3600, "1 h"), (7500, "2 h 5 min"),
     (90000, "1 d 1 h")],
)  # fmt: skip
def test_spans(seconds, text):
    assert span(seconds) == text
