"""Which attempt did what, and which of its steps count."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcresume.model import Cause
from hpcresume.observe.curve import read_curve
from hpcresume.observe.facts import AttemptFacts, read_facts
from hpcresume.observe.history import assemble, read_history

FLIPPED = {
    "generation": "g000000000030-a0002",
    "reason": "digest mismatch",
    "tensor": "model/w",
    "offset": 4096,
}


def three_attempts(written):
    """1 is warned at 20; 2 saves 30, dies at 35; 3 finds 30 damaged, starts from 20 and finishes at 50."""
    written.event(1, "claimed")
    written.start(1, None)
    written.event(1, "fresh-start")
    written.steps(1, 1, 20)
    written.event(1, "warning", signal=10)
    written.saved(1, 20)
    written.supervisor(1, "ended", cause="preempted", exit_code=0)

    written.start(2, "g000000000020-a0001")
    written.event(2, "restored", generation="g000000000020-a0001", step=20, skipped=[], seconds=0.25)
    written.steps(2, 21, 30)
    written.saved(2, 30)
    written.steps(2, 31, 35)
    written.supervisor(2, "cause", cause="crash", evidence=["rank 3 was killed by signal 9"])

    written.start(3, "g000000000020-a0001", [FLIPPED])
    written.event(3, "restored", generation="g000000000020-a0001", step=20, skipped=[FLIPPED], seconds=0.5)
    written.steps(3, 21, 50)
    written.saved(3, 50)
    written.event(3, "finished", step=50)
    written.run.done.write_text("{}")


def test_each_attempt_has_its_cause_its_steps_and_what_it_lost(written):
    three_attempts(written)
    history = read_history(written.run)
    rows = [(a.attempt, a.cause, a.start_step, a.end_step, a.restored_from, a.lost_steps) for a in history.attempts]
    assert rows == [
        (1, Cause.PREEMPTED, 0, 20, None, 0),
        (2, Cause.CRASH, 20, 35, "g000000000020-a0001", 15),
        (3, Cause.DONE, 20, 50, "g000000000020-a0001", 0),
    ]
    assert history.done
    assert history.lost_steps == 15
    assert history.attempts[0].warnings == 1
    assert history.attempts[1].evidence == ("rank 3 was killed by signal 9",)
    assert history.attempts[1].generations == ("g000000000030-a0002",)
    assert history.attempts[2].restore_seconds == 0.5


def test_a_skipped_generation_is_named_once_with_tensor_and_offset(written):
    three_attempts(written)
    (skipped,) = read_history(written.run).skipped
    assert (skipped.generation, skipped.tensor, skipped.offset) == ("g000000000030-a0002", "model/w", 4096)


def test_the_curve_takes_each_step_from_its_owner_and_keeps_lost_records_apart(written):
    three_attempts(written)
    curve = read_curve(written.run, read_history(written.run))
    assert [point.step for point in curve.kept] == list(range(1, 51))
    assert [point.attempt for point in curve.kept] == [1] * 20 + [3] * 30
    assert [(point.attempt, point.step) for point in curve.lost] == [(2, step) for step in range(21, 36)]


def test_steps_after_the_last_commit_are_lost_when_the_next_attempt_restores_it(written):
    written.start(1, None)
    written.steps(1, 1, 17)
    written.saved(1, 10)
    written.start(2, "g000000000010-a0001")
    written.steps(2, 11, 12)
    history = read_history(written.run)
    assert [a.lost_steps for a in history.attempts] == [7, 0]
    assert [history.owner(step) for step in (1, 10, 11, 12, 13)] == [1, 1, 2, 2, None]
    assert [a.cause for a in history.attempts] == [Cause.UNKNOWN, None]


def test_an_attempt_that_only_claimed_takes_nothing_from_the_others(written):
    written.start(1, None)
    written.steps(1, 1, 9)
    written.event(2, "claimed")
    history = read_history(written.run)
    assert [a.lost_steps for a in history.attempts] == [0, 0]


def test_work_of_a_run_that_never_committed_is_all_lost(written):
    written.start(1, None)
    written.steps(1, 1, 9)
    written.start(2, None)
    written.event(2, "fresh-start")
    written.steps(2, 1, 3)
    assert [a.lost_steps for a in read_history(written.run).attempts] == [9, 0]


def test_an_orphan_that_commits_after_a_newer_claim_owns_nothing_past_the_fork(written):
    written.start(1, None)
    written.steps(1, 1, 40)
    written.saved(1, 20)
    written.start(2, "g000000000020-a0001")
    written.saved(1, 40)
    written.steps(2, 21, 25)
    history = read_history(written.run)
    assert [a.counted_to for a in history.attempts] == [20, 25]
    assert history.owner(30) is None


def test_a_start_that_names_its_own_attempt_does_not_hang_the_reader(written):
    written.start(1, "g000000000020-a0001")
    written.start(2, "g000000000020-a0003")
    assert [a.attempt for a in read_history(written.run).attempts] == [1, 2]


def test_torn_files_of_a_killed_attempt_do_not_hide_the_rest(written):
    three_attempts(written)
    paths = written.run.attempt(2)
    for path in (paths.ledger, paths.metrics, paths.supervisor):
        with path.open("ab") as file:
            file.write(b'{"t": 1, "ev')
    paths.progress.write_bytes(b"\x01\x02")
    history = read_history(written.run)
    assert history.attempts[1].end_step == 35
    assert history.attempts[1].cause is Cause.CRASH


def test_non_finite_losses_are_read_as_numbers(written):
    written.start(1, None)
    written.line(written.run.attempt(1).metrics, step=1, t=1.0, values={"loss": "-inf"})
    curve = read_curve(written.run, read_history(written.run))
    assert curve.kept[0].value == float("-inf")


def _facts(attempt, start, end, made_by):
    name = f"g{start:012d}-a{made_by:04d}" if made_by else None
    return AttemptFacts(
        attempt=attempt, has_begun=True, start_step=start, end_step=end, restored_from=name, generations=(),
        skipped=(), cause=None, evidence=(), warnings=0, began=None, ended=None, save_seconds=0.0,
        verify_seconds=0.0, restore_seconds=0.0,
    )  # fmt: skip


@st.composite
def runs(draw):
    """Attempts that each start from a generation that an earlier one may have committed, or from nothing."""
    facts = []
    for attempt in range(1, draw(st.integers(1, 6)) + 1):
        parent = draw(st.sampled_from([None, *facts]))
        start = draw(st.integers(parent.start_step, parent.end_step)) if parent else 0
        made_by = parent.attempt if parent and start > parent.start_step else 0
        if parent and not made_by:
            start, made_by = parent.start_step, int((parent.restored_from or "a0")[-4:].strip("a"))
        facts.append(_facts(attempt, start, start + draw(st.integers(0, 9)), made_by))
    return facts


@given(runs())
def test_every_step_up_to_the_newest_is_owned_by_exactly_one_attempt(facts):
    history = assemble(facts, done=True)
    newest = history.attempts[-1].end_step
    for step in range(1, newest + 1):
        assert sum(a.owns(step) for a in history.attempts) == 1
    assert not any(a.owns(newest + 1) for a in history.attempts)


def test_of_metrics_the_ends_tell_enough_however_long_they_are(written):
    """A run of a million steps is listed and told about as soon as a short one."""
    written.start(1, None)
    written.steps(1, 1, 1)
    metrics = written.run.attempt(1).metrics
    with metrics.open("a") as file:
        file.truncate(64 << 20)  # a hole: what is read of it would be 64 MiB of NULs
        file.seek(0, 2)
        file.write('\n{"step": 9, "t": 2000.0, "values": {"loss": 1.0}}\n{"step": 10, "t": 20')
    written.progress(1, 0)
    tracemalloc.start()
    facts = read_facts(written.run, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (facts.began, facts.ended, facts.end_step) == (1000.1, 2000.0, 9)
    assert peak < 4 << 20


def note(written, attempt, rank, **fields):
    """An exception that a rank other than 0 recorded."""
    path = written.run.attempt(attempt).rank_ledger(rank)
    path.write_text(json.dumps({"t": 1.0, "mono": 1.0, "event": "exception", "rank": rank, "step": 7, **fields}) + "\n")


@pytest.mark.parametrize(
    ("raised", "cause"),
    [("ValueError", Cause.CRASH), ("MemoryError", Cause.OUT_OF_MEMORY), ("NoSpaceError", Cause.STORAGE)],
)
def test_an_attempt_that_nobody_watched_ended_by_the_exception_of_any_rank(written, raised, cause):
    written.event(1, "claimed")
    written.start(1, None)
    note(written, 1, 3, type=raised, message="no")
    facts = read_facts(written.run, 1)
    assert facts.cause is cause
    assert facts.evidence[0] == f"{raised} on rank 3 at step 7: no"


@pytest.mark.parametrize(("job", "cause"), [("9", Cause.NODE_FAILURE), ("10", Cause.UNKNOWN)])
def test_an_attempt_that_another_start_of_its_job_has_overtaken_lost_its_node(written, job, cause):
    written.event(1, "claimed", job_id="9")
    written.start(1, None)
    written.event(1, "exception", type="FencedError", message="attempt 2 has begun", rank=0, step=7)
    written.start(2, None)
    written.run.attempt(2).claim.write_text(json.dumps({"job_id": job}))
    facts = read_facts(written.run, 1)
    assert facts.cause is cause
    assert "while this" in facts.evidence[0]
